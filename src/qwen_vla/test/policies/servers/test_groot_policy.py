# SPDX-License-Identifier: Apache-2.0
"""A policy behind GR00T's protocol: server, file and robot are compared, and no answer of it is trusted."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack
import numpy as np
import pytest
import yaml
import zmq
from groot_client import decode, msgpack_numpy, npy
from serve_process import serving

from embodiment_descriptions import load_robot
from qwen_vla.policies import Observation, PolicyOptions, open_policy
from qwen_vla.policies.servers.groot import GrootPolicy
from qwen_vla.policies.servers.policy import ServerPolicy

PROMPT = "pick up the red cube"
CHUNK = np.arange(16 * 7, dtype=np.float32).reshape(1, 16, 7) / 1000
CONFIG = {
    "video": {"delta_indices": [0], "modality_keys": ["front", "wrist"]},
    "state": {"delta_indices": [0], "modality_keys": ["arm", "hand"]},
    "action": {"delta_indices": list(range(16)), "modality_keys": ["tip", "hand"]},
    "language": {"delta_indices": [0], "modality_keys": ["task"]},
}


@pytest.fixture(scope="module")
def robot():
    return load_robot("widowx")


@pytest.fixture
def needs(tmp_path, robot):
    """A file for a GR00T server that drives the WidowX."""
    file = tmp_path / "server.yaml"

    def write(**change) -> str:
        said = {
            "cameras": {"ego": "front", "cam_wrist": "wrist"},
            "image_size": [32, 32],
            "state": {"arm": list(robot.joint_names[:-1]), "hand": [robot.joint_names[-1]]},
            "action_units": {"gripper": {"scale": -1, "offset": 1}},
            "actions": {"tip": list(map(str, robot.channel_names[:6])), "hand": ["gripper"]},
            "control_mode": "eef_delta",
            "period": 0.2,
            "horizon": 16,
            "answer_seconds": 5,
        }
        file.write_text(yaml.safe_dump(said | change))
        return str(file)

    return write


def wrapped(config: dict) -> dict:
    return {name: {"__ModalityConfig_class__": True, "as_json": value} for name, value in config.items()}


def as_text(config: dict) -> dict:
    """As servers before N1.7 send it."""
    return {name: {"__ModalityConfig_class__": True, "as_json": json.dumps(value)} for name, value in config.items()}


class Scripted:
    """A server that answers get_action by a script, in a thread; `stop` leaves its port."""

    def __init__(self, answer: Callable[[dict], object], config: dict, encode, port: int = 0) -> None:
        self._answer, self._config, self._encode = answer, config, encode
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(self._socket.get_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                request = msgpack.unpackb(self._socket.recv(), object_hook=decode)
                reply = self._reply(request)
                if reply is None:
                    break
                self._socket.send(
                    reply if isinstance(reply, bytes) else msgpack.packb(reply, default=self._encode, use_bin_type=True)
                )
        except zmq.ContextTerminated:
            pass
        self._socket.close()

    def _reply(self, request: dict) -> object:
        if request["endpoint"] == "ping":
            return {"status": "ok", "message": "Server is running"}
        if request["endpoint"] == "get_modality_config":
            return self._config
        return self._answer(request)

    def stop(self) -> None:
        self._context.term()
        self._thread.join()


@contextmanager
def another(answer: Callable, config: dict | None = None, encode=npy, port: int = 0) -> Iterator[int]:
    """The port of a server with scripted responses; None: it is gone."""
    server = Scripted(answer, wrapped(CONFIG) if config is None else config, encode, port)
    try:
        yield server.port
    finally:
        server.stop()


def observation(robot, frames: int = 0) -> Observation:
    random = np.random.default_rng(0)
    shape = (24, 48, 3) if not frames else (frames, 24, 48, 3)
    images = {camera.tag: random.integers(0, 256, shape, dtype=np.uint8) for camera in robot.cameras}
    return Observation(images, PROMPT, 7, np.linspace(0.1, 0.4, len(robot.joint_names)))


def response(tip: np.ndarray = CHUNK[..., :6], hand: np.ndarray = CHUNK[..., 6:]) -> list:
    return [{"tip": tip, "hand": hand}, {}]


def opened(port: int, robot, file: str):
    return open_policy(f"groot://127.0.0.1:{port},{file}", robot)


# --- servers that behave ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode, arrays", [(npy, "npy"), (msgpack_numpy, "msgpack_numpy")])
@pytest.mark.parametrize("told", [wrapped, as_text, dict])
def test_a_server_is_asked_in_its_own_keys_and_units(robot, needs, encode, arrays: str, told) -> None:
    requests = []

    def answer(request: dict) -> list:
        requests.append(request)
        return response()

    with another(answer, told(CONFIG), encode) as port:
        policy = opened(port, robot, needs(arrays=arrays))
        seen = observation(robot)
        got = policy.infer(seen, seed=3)
        policy.close()
    (request,) = requests
    sent = request["data"]["observation"]
    assert {key: image.shape for key, image in sent["video"].items()} == {
        "front": (1, 1, 32, 32, 3),
        "wrist": (1, 1, 32, 32, 3),
    }
    assert sent["state"]["arm"].shape == (1, 1, 6) and sent["state"]["hand"].shape == (1, 1, 1)
    assert sent["language"] == {"task": [[PROMPT]]}
    np.testing.assert_allclose(sent["state"]["arm"][0, 0], seen.state[:6], rtol=1e-6)
    np.testing.assert_array_equal(got.data[:, :6], CHUNK[0, :, :6])
    np.testing.assert_allclose(got.data[:, 6], 1 - CHUNK[0, :, 6], rtol=1e-6)
    assert (got.execution_horizon, got.stamp_ns, got.instruction) == (8, 7, PROMPT)


def test_a_history_that_has_just_begun_repeats_its_oldest_frame(robot, needs) -> None:
    shown = []
    config = CONFIG | {"video": CONFIG["video"] | {"delta_indices": [-2, -1, 0]}}

    def answer(request: dict) -> list:
        shown.append(request["data"]["observation"]["video"]["front"][0])
        return response()

    with another(answer, wrapped(config)) as port:
        policy = opened(port, robot, needs(history_frames=3, image_size=[24, 48]))
        seen = observation(robot, frames=2)
        policy.infer(seen)
        policy.close()
    ego = seen.images["ego"]
    np.testing.assert_array_equal(shown[0], [ego[0], ego[0], ego[1]])


def test_our_own_server_answers_as_the_policy_does(fitting_checkpoint, robot, needs) -> None:
    file = needs(
        cameras={"ego": "ego", "cam_wrist": "cam_wrist"},
        image_size=None,
        state={},
        actions={"action": list(map(str, robot.channel_names))},
        action_units={},
        answer_seconds=60,
    )
    local = open_policy(str(fitting_checkpoint), robot, PolicyOptions(threads=1))
    arguments = ("--checkpoint", str(fitting_checkpoint), "--robot", "widowx", "--threads", "1")
    with serving(*arguments, "--port", "0", "--groot-port", "0") as server:
        policy = opened(server.ports["groot"], robot, file)
        there = policy.infer(observation(robot), seed=3)
        policy.close()
    np.testing.assert_array_equal(there.data, local.infer(observation(robot), seed=3).data)


def test_the_key_of_the_environment_is_sent(robot, needs, monkeypatch) -> None:
    tokens = []

    def answer(request: dict) -> list:
        tokens.append(request.get("api_token"))
        return response()

    monkeypatch.setenv("QWEN_VLA_API_KEY", "secret")
    with another(answer) as port:
        policy = opened(port, robot, needs())
        policy.infer(observation(robot))
        policy.close()
    assert tokens == ["secret"]


# --- servers that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, told",
    [
        ({"horizon": 8}, "horizon: the server has 16, the file 8; chunk size: trained with 8, the robot has 16"),
        ({"history_frames": 2}, "history_frames: the server has 1, the file 2"),
        ({"cameras": {"ego": "front"}}, "video: the server has front, wrist, the file front"),
        ({"state": {}}, "state: the server has arm, hand, the file none"),
        ({"actions": {"tip": ["x"]}}, "action: the server has tip, hand, the file tip; channels: trained with x"),
        ({"prompt": "annotation"}, "language: the server has task, the file annotation"),
        ({"period": 0.02}, "period"),
        ({"action_units": {"claw": {"scale": 2}}}, "action_units: no channel claw"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_asked(robot, needs, change: dict, told: str) -> None:
    asked = []
    with another(asked.append) as port, pytest.raises(ValueError, match=told):
        opened(port, robot, needs(**change))
    assert not asked


def test_a_policy_that_does_not_fit_is_disconnected(robot, needs, monkeypatch) -> None:
    closed = []
    monkeypatch.setattr(GrootPolicy, "close", lambda self: closed.append(ServerPolicy.close(self)))
    with another(lambda _: response()) as port, pytest.raises(ValueError, match="period"):
        opened(port, robot, needs(period=0.02))
    assert closed == [None]


def test_without_a_file_it_is_said_what_to_do(robot) -> None:
    with pytest.raises(ValueError, match=r"do so in a file, groot://HOST:PORT,FILE\.yaml"):
        open_policy("groot://127.0.0.1:9", robot)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere"])
def test_where_nobody_answers_is_said(robot, needs, address: str, monkeypatch) -> None:
    monkeypatch.setattr("qwen_vla.policies.servers.groot_connection.CONNECT_SECONDS", 0.3)
    with pytest.raises(ConnectionError, match=f"no policy responds at groot://{address}"):
        open_policy(f"groot://{address},{needs()}", robot)


def test_a_server_of_another_kind_is_not_taken_for_one_of_groot(robot, needs) -> None:
    with another(lambda _: response(), {"video": 3}) as port, pytest.raises(ConnectionError, match="of video is 3"):
        opened(port, robot, needs())


# --- servers that misbehave -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply, kind, told",
    [
        (response(tip=CHUNK[:, :3, :6]), ArithmeticError, r"action tip must be \[1, 16, 6\], got an array \[1, 3, 6\]"),
        (response(hand=CHUNK[..., :2]), ArithmeticError, "action hand must be"),
        (response(tip=np.full((1, 16, 6), np.nan)), ArithmeticError, "not finite"),
        ([{"tip": CHUNK[..., :6]}, {}], ArithmeticError, "action hand must be .* got nothing"),
        ([], ArithmeticError, r"must be \[actions, info\]"),
        ({"error": "strict: no such key"}, ValueError, "refuses: strict: no such key"),
        (b"\xc1", ArithmeticError, "invalid response"),
        (bytes(17 * 2**20), ConnectionError, "was lost: it ended, or its response was above"),
    ],
)
def test_an_answer_that_is_none_is_an_error_and_the_next_call_works(robot, needs, reply, kind, told: str) -> None:
    replies = [reply, response()]
    with another(lambda _: replies.pop(0)) as port:
        policy = opened(port, robot, needs())
        with pytest.raises(kind, match=told):
            policy.infer(observation(robot))
        np.testing.assert_array_equal(policy.infer(observation(robot)).data[:, :6], CHUNK[0, :, :6])
        policy.close()


def test_a_server_that_dies_is_noticed_at_once_and_its_successor_is_asked(robot, needs) -> None:
    with another(lambda _: None) as port:
        policy = opened(port, robot, needs(answer_seconds=60))
        with pytest.raises(ConnectionError, match="was lost"):
            policy.infer(observation(robot))
    with another(lambda _: response(), port=port):
        np.testing.assert_array_equal(policy.infer(observation(robot)).data[:, :6], CHUNK[0, :, :6])
        policy.close()


def test_a_late_answer_is_given_up_and_never_taken_for_that_of_a_later_question(robot, needs) -> None:
    release, replies = threading.Event(), [response(tip=np.zeros((1, 16, 6))), response()]

    def answer(_: dict) -> list:
        if len(replies) == 2:
            late = replies.pop(0)
            assert release.wait(30)
            return late
        return replies.pop(0)

    with another(answer) as port:
        policy = opened(port, robot, needs(answer_seconds=0.3))
        with pytest.raises(TimeoutError, match="did not respond within 0.3 s"):
            policy.infer(observation(robot))
        release.set()
        np.testing.assert_array_equal(policy.infer(observation(robot)).data[:, :6], CHUNK[0, :, :6])
        policy.close()


def test_another_policy_at_the_same_address_is_not_taken_for_the_first(robot, needs) -> None:
    with another(lambda _: None) as port:
        policy = opened(port, robot, needs())
        with pytest.raises(ConnectionError, match="was lost"):
            policy.infer(observation(robot))
    changed = wrapped(CONFIG | {"state": CONFIG["state"] | {"modality_keys": ["whole"]}})
    with another(lambda _: response(), changed, port=port):
        with pytest.raises(ConnectionError, match="a different policy responds .* state changed"):
            policy.infer(observation(robot))
        policy.close()
