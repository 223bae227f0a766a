# SPDX-License-Identifier: Apache-2.0
"""vla-eval's own connection, as it is installed from PyPI, plays episodes against `qwen-vla serve`."""

import json
from pathlib import Path

import numpy as np
import pytest
from foreign_environment import foreign_python, run
from scipy.spatial.transform import Rotation
from serve_process import serving

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.policies import Observation, PolicyOptions, open_policy
from qwen_vla.serving.vla_eval import Tip, osc_action

PEER = Path(__file__).with_name("vla_eval_peer.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vla_eval_plays_the_chunks_of_the_policy(tmp_path) -> None:
    python = foreign_python("vla-eval==0.8.0")
    random = np.random.default_rng(0)
    images = {tag: random.integers(0, 256, (128, 128, 3), dtype=np.uint8) for tag in ("ego", "cam_wrist")}
    states = np.array([0.4, 0.0, 0.3, 3.0, 0.2, 0.3, 0.02, 0.02])
    np.savez(tmp_path / "in.npz", states=states, **images)
    checkpoint = str(resource_path("checkpoints/tiny"))
    policy = ("--checkpoint", checkpoint, "--robot", "widowx", "--threads", "1")
    with serving(*policy, "--port", "0", "--vla-eval-port", "0") as server:
        run(python, PEER, server.ports["vla-eval"], tmp_path / "in.npz", tmp_path / "out.npz")

    chunk = open_policy(checkpoint, load_robot("widowx"), PolicyOptions(threads=1)).infer(
        Observation(images, "pick up the red cube"), seed=5
    )
    tip = Tip(states[:3], Rotation.from_rotvec(states[3:6]))
    steps = np.float32([osc_action(row, tip, tip) for row in chunk.data[: chunk.execution_horizon]])
    wanted = np.concatenate([steps, steps, steps])[[*range(10), 0]]
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["actions"], wanted)
        about = json.loads(str(out["about"]))
    assert about["warnings"] == []
    assert about["info"]["protocol_version"] == 1
    assert "images.ego: missing" in about["error"]
