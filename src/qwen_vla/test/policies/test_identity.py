# SPDX-License-Identifier: Apache-2.0
"""Who predicts: by name and hash, which say of a checkpoint what it is, wherever it runs."""

from embodiment_descriptions import load_robot
from qwen_vla.policies import PolicyOptions, open_policy
from qwen_vla.policies.identity import PolicyIdentity, checkpoint_hash, identity_of
from qwen_vla.policies.mock import MockPolicy


def test_a_checkpoint_is_known_by_its_folder_and_the_hash_of_its_content(fitting_checkpoint) -> None:
    robot = load_robot("widowx")
    reference = str(fitting_checkpoint)
    identity = identity_of(reference, open_policy(reference, robot), robot)
    assert identity == PolicyIdentity(reference, checkpoint_hash(fitting_checkpoint), "qwen_vla", "widowx")
    assert len(identity.hash) == 64


def test_a_policy_without_a_checkpoint_is_known_by_its_address() -> None:
    robot = load_robot("aloha")
    identity = identity_of("mock://hold", open_policy("mock://hold", robot), robot)
    assert identity == PolicyIdentity("hold", "", "mock", "aloha")


def test_a_policy_on_a_server_has_the_name_and_hash_that_the_server_tells() -> None:
    class Served(MockPolicy):
        policy_name, policy_hash = "tiny", "0" * 64

    robot = load_robot("widowx")
    served = Served("hold", robot, PolicyOptions())
    assert identity_of("openpi://gpu:8000", served, robot) == PolicyIdentity("tiny", "0" * 64, "openpi", "widowx")
