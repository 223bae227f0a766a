# SPDX-License-Identifier: Apache-2.0
"""A policy behind openpi's protocol: what it needs is compared with the robot, and no answer of it is trusted."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection, serve

from embodiment_descriptions import load_robot
from qwen_vla.policies import ChunkPolicy, ContinuingPolicy, Observation, PolicyOptions, open_policy
from qwen_vla.policies.identity import checkpoint_hash
from qwen_vla.policies.servers.openpi import open_openpi
from qwen_vla.policies.servers.policy import with_borders
from qwen_vla.serving import openpi
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.messages import openpi_array, pack, unpack
from qwen_vla.serving.openpi import OpenPiSession
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.websocket_listener import WebSocketListener

PROMPT = "pick up the red cube"
CHUNK = np.arange(16 * 7, dtype=np.float32).reshape(16, 7) / 1000


@pytest.fixture(scope="module")
def robot():
    return load_robot("widowx")


@contextmanager
def ours(checkpoint: str, robot) -> Iterator[str]:
    """The address of our own server, in a thread."""
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), []
    queue = InferenceQueue(ServedPolicy(checkpoint, robot))

    async def run(stop: asyncio.Event) -> None:
        session = partial(OpenPiSession, served=queue._served, queue=queue)
        listener = WebSocketListener(session, openpi.PAGES)
        port.append(await listener.start("127.0.0.1", 0))
        ready.set()
        await stop.wait()
        await listener.stop()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(stop),))
    thread.start()
    assert ready.wait(60)
    try:
        yield f"127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        queue.close()
        loop.close()


@contextmanager
def another(answer: Callable[[dict], bytes | str | None], metadata: dict | None = None) -> Iterator[str]:
    """The address of a server with scripted responses; None: it closes the connection."""

    def handle(connection: ServerConnection) -> None:
        connection.send(pack(metadata or {}, openpi_array))
        for frame in connection:
            reply = answer(unpack(frame))
            if reply is None:
                return
            connection.send(reply)

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def needs(tmp_path, robot):
    """A file for a server of openpi that drives the WidowX."""
    file = tmp_path / "server.yaml"

    def write(**change) -> str:
        said = {
            "cameras": {"ego": "observation/image", "cam_wrist": "images.wrist"},
            "image_size": [32, 32],
            "state": {"observation/state": list(robot.joint_names)},
            "control_mode": "eef_delta",
            "channels": list(map(str, robot.channel_names)),
            "period": 0.2,
            "horizon": 16,
        }
        file.write_text(yaml.safe_dump(said | change))
        return str(file)

    return write


def observation(robot) -> Observation:
    random = np.random.default_rng(0)
    images = {camera.tag: random.integers(0, 256, (24, 48, 3), dtype=np.uint8) for camera in robot.cameras}
    return Observation(images, PROMPT, 7, np.linspace(0, 0.3, len(robot.joint_names)))


def chunk(actions: np.ndarray = CHUNK) -> bytes:
    return pack({"actions": actions}, openpi_array)


def opened(address: str, robot, file: str = "") -> ChunkPolicy:
    return open_policy(f"openpi://{address}{',' if file else ''}{file}", robot)


# --- servers that behave ----------------------------------------------------------------------------------------------


def test_our_own_server_needs_no_file_and_answers_as_the_policy_does(fitting_checkpoint, robot) -> None:
    local = open_policy(str(fitting_checkpoint), robot, PolicyOptions())
    with ours(str(fitting_checkpoint), robot) as address:
        policy = opened(address, robot)
        seen = observation(robot)
        there, here = policy.infer(seen, seed=3), local.infer(seen, seed=3)
        assert policy.policy_name == str(fitting_checkpoint)
        assert policy.policy_hash == checkpoint_hash(fitting_checkpoint)
        policy.close()
    assert policy.camera_tags == local.camera_tags and policy.state_names == local.state_names
    np.testing.assert_array_equal(there.data, here.data)
    assert (there.channel_names, there.period, there.execution_horizon, there.stamp_ns) == (
        here.channel_names,
        here.period,
        here.execution_horizon,
        7,
    )


def test_our_own_server_continues_a_chunk_as_the_policy_does(fitting_checkpoint, robot) -> None:
    local = open_policy(str(fitting_checkpoint), robot, PolicyOptions())
    before, moved = np.eye(4), np.eye(4)
    moved[0, 3] = 0.01
    times = ((before, 0), (moved, 800_000_000))
    seen = [replace(observation(robot), tip_poses={"": pose}, stamp_ns=stamp) for pose, stamp in times]
    with ours(str(fitting_checkpoint), robot) as address:
        policy = opened(address, robot)
        assert isinstance(policy, ContinuingPolicy)
        first = policy.infer(seen[0], seed=1)
        there = policy.continue_chunk(seen[1], first, 2, 8, schedule="ones", seed=2)
        policy.close()
    here = local.continue_chunk(seen[1], local.infer(seen[0], seed=1), 2, 8, schedule="ones", seed=2)
    np.testing.assert_array_equal(there.data, here.data)
    assert there.inference_delay == here.inference_delay == 2


def test_a_file_says_what_another_server_is_sent(robot, needs) -> None:
    sent = []

    def answer(fields: dict) -> bytes:
        sent.append(fields)
        return chunk()

    with another(answer) as address:
        degrees = {"waist": {"scale": 180 / np.pi}}
        closing = {"gripper": {"scale": -1, "offset": 1}}
        policy = opened(address, robot, needs(action_units=closing, state_units=degrees))
        seen = observation(robot)
        got = policy.infer(seen, seed=3)
        policy.close()
    (fields,) = sent
    assert set(fields) == {"observation/image", "images", "observation/state", "prompt"}
    np.testing.assert_array_equal(fields["images"]["wrist"], with_borders(seen.images["cam_wrist"], (32, 32)))
    np.testing.assert_allclose(fields["observation/state"], [np.degrees(seen.state[0]), *seen.state[1:]], rtol=1e-6)
    np.testing.assert_array_equal(got.data[:, :6], CHUNK[:, :6])
    np.testing.assert_allclose(got.data[:, 6], 1 - CHUNK[:, 6], rtol=1e-6)
    assert got.execution_horizon == 8


def test_images_may_be_sent_with_their_channels_first(robot, needs) -> None:
    shapes = []

    def answer(fields: dict) -> bytes:
        shapes.append(fields["observation/image"].shape)
        return chunk()

    with another(answer) as address:
        policy = opened(address, robot, needs(channels_first=True))
        policy.infer(observation(robot))
        policy.close()
    assert shapes == [(3, 32, 32)]


def test_borders_keep_the_proportions() -> None:
    framed = with_borders(np.full((24, 48, 3), 200, np.uint8), (32, 32))
    assert framed[:8].max() == framed[24:].max() == 0
    assert framed[8:24].min() == 200


def test_the_key_of_the_environment_is_sent(robot, needs, monkeypatch) -> None:
    keys = []

    def handle(connection: ServerConnection) -> None:
        keys.append(connection.request.headers.get("Authorization"))
        connection.send(pack({}, openpi_array))

    monkeypatch.setenv("QWEN_VLA_API_KEY", "secret")
    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        opened(f"127.0.0.1:{server.socket.getsockname()[1]}", robot, needs()).close()
        server.shutdown()
        thread.join()
    assert keys == ["Api-Key secret"]


# --- servers that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, told",
    [
        ({"horizon": 8}, "chunk size: trained with 8, the robot has 16"),
        ({"period": 0.02}, "period"),
        ({"control_mode": "joint_position"}, "control mode"),
        ({"channels": ["x", "y"]}, "channels"),
        ({"cameras": {"front": "image"}}, "cameras: the policy needs front"),
        ({"state": {"state": ["panda_joint1"]}}, "joints: the policy needs panda_joint1"),
        ({"action_units": {"claw": {"scale": 2}}}, "action_units: no channel claw"),
        ({"state_units": {"claw": {"scale": 2}}}, "state_units: claw is not in the state"),
    ],
)
def test_what_does_not_fit_the_robot_is_named_before_anything_is_asked(robot, needs, change: dict, told: str) -> None:
    asked = []
    with another(asked.append) as address, pytest.raises(ValueError, match=told):
        opened(address, robot, needs(**change))
    assert not asked


def test_a_server_of_ours_for_another_robot_is_refused(robot) -> None:
    with (
        ours("mock://hold", load_robot("aloha")) as address,
        pytest.raises(ValueError, match="robot: the server drives aloha"),
    ):
        opened(address, robot)


def test_a_server_that_says_nothing_needs_a_file(robot) -> None:
    with another(lambda _: chunk()) as address, pytest.raises(ValueError, match="do so in a file"):
        opened(address, robot)


def test_a_file_that_makes_no_sense_is_named(robot, needs) -> None:
    with pytest.raises(ValueError, match=r"server\.yaml: horizon: .* got -1$"):
        opened("127.0.0.1:9", robot, needs(horizon=-1))
    with pytest.raises(ValueError, match="the scale of a unit must not be 0"):
        opened("127.0.0.1:9", robot, needs(action_units={"gripper": {"scale": 0}}))


def test_where_nobody_answers_is_said(robot, needs) -> None:
    with pytest.raises(ConnectionError, match="no policy responds at openpi://127.0.0.1:9"):
        opened("127.0.0.1:9", robot, needs())


# --- servers that misbehave -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply, kind, told",
    [
        (chunk(CHUNK[:3]), ArithmeticError, r"actions must be \[16, 7\], got an array \[3, 7\]"),
        (chunk(CHUNK[:, :3]), ArithmeticError, "actions must be"),
        (chunk(np.full((16, 7), np.nan)), ArithmeticError, "not finite"),
        (pack({"action": 1}, openpi_array), ArithmeticError, "actions must be .* got nothing"),
        (b"\xc1", ArithmeticError, "invalid response"),
        ("Traceback: no such key", ValueError, "refuses: Traceback: no such key"),
        (None, ConnectionError, "was lost"),
        (bytes(17 * 2**20), ConnectionError, "was lost"),
    ],
)
def test_an_answer_that_is_none_is_an_error_and_the_next_call_works(robot, needs, reply, kind, told: str) -> None:
    replies = [reply, chunk()]
    with another(lambda _: replies.pop(0)) as address:
        policy = opened(address, robot, needs())
        with pytest.raises(kind, match=told):
            policy.infer(observation(robot))
        np.testing.assert_array_equal(policy.infer(observation(robot)).data, CHUNK)
        policy.close()


def test_a_late_answer_is_given_up_and_never_taken_for_that_of_a_later_question(robot, needs) -> None:
    release, replies = threading.Event(), [chunk(np.zeros((16, 7))), chunk()]

    def answer(_: dict) -> bytes:
        if len(replies) == 2:
            late = replies.pop(0)
            assert release.wait(30)
            return late
        return replies.pop(0)

    with another(answer) as address:
        policy = opened(address, robot, needs(answer_seconds=0.3))
        with pytest.raises(TimeoutError, match="did not respond within 0.3 s"):
            policy.infer(observation(robot))
        release.set()
        np.testing.assert_array_equal(policy.infer(observation(robot)).data, CHUNK)
        policy.close()


@contextmanager
def reading_nothing() -> Iterator[str]:
    """The address of a server that sends its metadata and then leaves everything in the system's buffers."""
    done = threading.Event()

    def handle(listener: socket.socket) -> None:
        protocol = ServerProtocol()
        with listener.accept()[0] as client:
            while not (requests := protocol.events_received()):
                protocol.receive_data(client.recv(65536))
            protocol.send_response(protocol.accept(requests[0]))
            protocol.send_binary(pack({}, openpi_array))
            for data in protocol.data_to_send():
                client.sendall(data)
            assert done.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=handle, args=(listener,))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        thread.join()


def test_a_server_that_reads_nothing_is_given_up(robot, needs, monkeypatch) -> None:
    monkeypatch.setattr("qwen_vla.policies.servers.openpi_connection.UNREAD_MS", 500)
    with reading_nothing() as address:
        policy = opened(address, robot, needs(image_size=[2000, 2000], answer_seconds=60))
        with pytest.raises(ConnectionError, match="was lost"):
            policy.infer(observation(robot))


def test_another_policy_at_the_same_address_is_not_taken_for_the_first(robot, needs) -> None:
    told = iter([{"checkpoint": "a"}, {"checkpoint": "b"}])

    def handle(connection: ServerConnection) -> None:
        connection.send(pack(next(told), openpi_array))
        connection.recv()

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        policy = open_openpi(f"127.0.0.1:{server.socket.getsockname()[1]},{needs()}", robot, PolicyOptions())
        with pytest.raises(ConnectionError, match="was lost"):
            policy.infer(observation(robot))
        with pytest.raises(ConnectionError, match="a different policy responds .* checkpoint"):
            policy.infer(observation(robot))
        server.shutdown()
        thread.join()
