"""The files of examples/remote_policies fit the robots that they are for."""

import numpy as np
import pytest

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.policies.fit import missing_inputs, training_misfits
from qwen_vla.policies.servers.groot import GrootNeeds
from qwen_vla.policies.servers.openpi import OpenPiNeeds

FOLDER = resource_path("examples/remote_policies")
ROBOTS = {
    "pi0_aloha": ("aloha", OpenPiNeeds),
    "pi05_droid": ("examples/franka_2f85/franka_2f85.yaml", OpenPiNeeds),
    "smolvla_so101": ("examples/so101/so101.yaml", OpenPiNeeds),
    "groot_so101": ("examples/so101/so101.yaml", GrootNeeds),
}


def test_every_file_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(ROBOTS)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_file_fits_its_robot(name: str) -> None:
    robot, kind = ROBOTS[name]
    robot = load_robot(robot)
    needs = kind.from_file(FOLDER / f"{name}.yaml")
    if name == "groot_so101":
        robot = robot.model_copy(update={"chunk_size": 16})
    assert not training_misfits(needs, robot)
    assert not list(missing_inputs(list(needs.cameras), needs.joints, robot))
    assert set(needs.state_units) <= set(needs.joints) and set(needs.action_units) <= set(needs.channel_names)


@pytest.mark.parametrize("name", ["smolvla_so101", "groot_so101"])
def test_grippers_of_lerobot_are_counted_from_closed_to_open(name: str) -> None:
    robot = load_robot("examples/so101/so101.yaml")
    needs = ROBOTS[name][1].from_file(FOLDER / f"{name}.yaml")
    gripper = robot.arms[0].gripper
    for position, share in ((gripper.closed, 0.0), (gripper.open, 100.0)):
        sent = np.concatenate([part for _, part in needs.sent_state(np.array([0.0] * 5 + [position]))])
        assert sent[5] == pytest.approx(share, abs=0.01)
    np.testing.assert_allclose(
        needs.received_chunk(np.array([[90.0] * 5 + [100.0]])), [[np.pi / 2] * 5 + [1.0]], rtol=1e-5
    )


def test_droid_counts_its_gripper_from_open_to_closed() -> None:
    needs = OpenPiNeeds.from_file(FOLDER / "pi05_droid.yaml")
    parts = dict(needs.sent_state(np.array([0.0] * 7 + [0.8])))
    assert parts["observation/gripper_position"] == pytest.approx([1.0])
    assert needs.received_chunk(np.ones((1, 8)))[0, 7] == pytest.approx(0.0)
