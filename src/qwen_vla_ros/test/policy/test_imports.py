# SPDX-License-Identifier: Apache-2.0
"""No node imports torch before a policy is opened."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["executor.executor_node", "drawing.trajectory_visualizer", "policy.policy_node"])
def test_no_node_imports_torch_by_being_imported(module):
    program = f"import sys, qwen_vla_ros.{module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
