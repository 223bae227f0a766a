# SPDX-License-Identifier: Apache-2.0
"""Qwen-VLA as a LeRobot policy, `--policy.type=qwen_vla`: a client of `qwen-vla serve`.

The model runs in its own process, because LeRobot's pins of torch and transformers contradict its. LeRobot imports
every installed package of such a name, which registers the policy.
"""

from lerobot_policy_qwen_vla.configuration_qwen_vla import QwenVLAConfig

__all__ = ["QwenVLAConfig"]
