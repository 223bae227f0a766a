# SPDX-License-Identifier: Apache-2.0
"""The files of examples/remote_policies fit the robots that they are for, and say what their servers read."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.policies import Observation, open_policy
from qwen_vla.policies.fit import missing_inputs, training_misfits
from qwen_vla.policies.servers.groot import GrootNeeds
from qwen_vla.policies.servers.openpi import OpenPiNeeds
from qwen_vla.serving.messages import openpi_array, pack, unpack

FOLDER = resource_path("examples/remote_policies")
ROBOTS = {
    "pi0_aloha": ("config/embodiments/aloha_real.yaml", OpenPiNeeds),
    "pi05_droid": ("examples/franka_2f85/franka_2f85.yaml", OpenPiNeeds),
    "smolvla_so101": ("examples/so101/so101.yaml", OpenPiNeeds),
    "groot_so101": ("examples/so101/so101.yaml", GrootNeeds),
}
READ = {  # shapes of what openpi's AlohaInputs and DroidInputs and integrations/serve_lerobot.py read
    "pi0_aloha": {
        **{f"images.{name}": (3, 224, 224) for name in ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")},
        "state": (14,),
    },
    "pi05_droid": {
        "observation/exterior_image_1_left": (224, 224, 3),
        "observation/wrist_image_left": (224, 224, 3),
        "observation/joint_position": (7,),
        "observation/gripper_position": (1,),
    },
    "smolvla_so101": {"images.front": (48, 64, 3), "images.wrist": (48, 64, 3), "state": (6,)},
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


@contextmanager
def answering(rows: np.ndarray, requests: list[dict]) -> Iterator[str]:
    """The address of a server of openpi's protocol without metadata, which answers with these rows."""

    def handle(connection: ServerConnection) -> None:
        connection.send(pack({}, openpi_array))
        for frame in connection:
            requests.append(unpack(frame))
            connection.send(pack({"actions": rows}, openpi_array))

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def flat(fields: Mapping) -> dict[str, np.ndarray]:
    """The arrays of a request; x in the map `images` is images.x."""
    found = {key: value for key, value in fields.items() if isinstance(value, np.ndarray)}
    return found | {f"images.{key}": value for key, value in fields.get("images", {}).items()}


@pytest.mark.parametrize("name", READ)
def test_the_server_is_sent_what_it_reads_and_its_answer_is_a_chunk(name: str) -> None:
    robot, requests = load_robot(ROBOTS[name][0]), []
    needs = OpenPiNeeds.from_file(FOLDER / f"{name}.yaml")
    rows = np.full((needs.horizon, len(needs.channels)), 0.25, np.float32)
    with answering(rows, requests) as address:
        policy = open_policy(f"openpi://{address},{FOLDER / f'{name}.yaml'}", robot)
        images = {tag: np.zeros((48, 64, 3), np.uint8) for tag in policy.camera_tags}
        state = np.array([robot.home[joint] for joint in policy.state_names])
        chunk = policy.infer(Observation(images, "tidy up", state=state))
        policy.close()
    (fields,) = requests
    assert {key: value.shape for key, value in flat(fields).items()} == READ[name]
    assert fields["prompt"] == "tidy up"
    assert chunk.channel_names == tuple(robot.channel_names) and chunk.period == pytest.approx(robot.period)
    np.testing.assert_allclose(chunk.data, needs.received_chunk(rows))


def test_aloha_is_told_how_far_its_grippers_are_open() -> None:
    robot = load_robot(ROBOTS["pi0_aloha"][0])
    needs = OpenPiNeeds.from_file(FOLDER / "pi0_aloha.yaml")
    for end, share in (("closed", 0.0), ("open", 1.0)):
        joints = dict.fromkeys(needs.joints, 0.5)
        joints |= {arm.gripper.joint: getattr(arm.gripper, end) for arm in robot.arms}
        ((_, sent),) = needs.sent_state(np.array(list(joints.values())))
        np.testing.assert_allclose(sent, [*[0.5] * 6, share] * 2, atol=1e-4)


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
