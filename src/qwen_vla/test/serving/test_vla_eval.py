# SPDX-License-Identifier: Apache-2.0
"""vla-eval's protocol: a benchmark gets an action for each step, in its own units, and errors without being cut off."""

import asyncio
import io
import urllib.request

import msgpack
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from serving_peers import HOST, PROMPT, images
from websockets.asyncio.client import connect

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.policies import Observation, PolicyOptions, open_policy
from qwen_vla.serving import vla_eval
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.vla_eval import Tip, VlaEvalSession, osc_action
from qwen_vla.serving.websocket_listener import WebSocketListener

STATE = np.array([0.4, 0.0, 0.3, 0.1, 0.2, 0.3, 0.02, 0.02])


@pytest.fixture(scope="module")
def served(fitting_checkpoint):
    return ServedPolicy(str(fitting_checkpoint), load_robot("widowx"))


def png(image: np.ndarray) -> dict:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return {"__image__": True, "format": "png", "data": stream.getvalue(), "shape": list(image.shape)}


def array(values: np.ndarray) -> dict:
    return {"__ndarray__": True, "data": values.tobytes(), "dtype": values.dtype.str, "shape": list(values.shape)}


def observation(served: ServedPolicy, number: int = 0, **change) -> dict:
    ego, wrist = images(served, number).values()
    shown = {"images": {"agentview": png(ego), "wrist": png(wrist)}, "task_description": PROMPT, "seed": 3}
    return shown | {"states": array(STATE)} | change


def exchange(served: ServedPolicy, *messages: tuple[str, dict]) -> list[dict]:
    """The answers to messages, those that get none left out."""

    async def run():
        queue = InferenceQueue(served)
        listener = WebSocketListener(lambda number: VlaEvalSession(number, served, queue), vla_eval.PAGES)
        port = await listener.start(HOST, 0)
        try:
            async with connect(f"ws://{HOST}:{port}") as connection:
                answers = []
                for number, (kind, payload) in enumerate(messages):
                    message = {"type": kind, "payload": payload, "seq": number, "timestamp": 0.0}
                    await connection.send(msgpack.packb(message))
                    if not kind.startswith("episode"):
                        answers.append(msgpack.unpackb(await connection.recv()))
                return answers
        finally:
            await listener.stop()
            queue.close()

    return asyncio.run(run())


def actions(message: dict) -> np.ndarray:
    told = message["payload"]["actions"]
    return np.frombuffer(told["data"], told["dtype"]).reshape(told["shape"])


def test_the_greeting_says_what_is_needed_and_what_the_actions_mean(served) -> None:
    (hello,) = exchange(served, ("hello", {"harness_version": "0.8.0", "protocol_version": 1, "benchmark": "x"}))
    assert (hello["type"], hello["payload"]["protocol_version"]) == ("hello", 1)
    assert hello["payload"]["observation_params"] == {"send_wrist_image": True, "send_state": True}
    assert set(hello["payload"]["action_spec"]) == {"position", "rotation", "gripper"}
    assert set(hello["payload"]["observation_spec"]) == {"agentview", "wrist", "language", "state"}


def test_another_version_is_refused(served) -> None:
    (error,) = exchange(served, ("hello", {"protocol_version": 2}))
    assert error["type"] == "error" and "payload.protocol_version: must be 1" in error["payload"]["error"]


def test_steps_play_a_chunk_up_to_its_execution_horizon_and_then_the_next(served, fitting_checkpoint) -> None:
    """Wherever the tip is by then, each step leads to the row's pose, relative to the tip at the chunk's images."""
    ways = np.linspace(0, 0.02, 9)[:, None] * np.arange(8)
    states = [STATE + way for way in ways]
    steps = [("observation", observation(served, i, states=array(state))) for i, state in enumerate(states)]
    answers = exchange(served, *steps)
    assert [answer["seq"] for answer in answers] == list(range(9))
    policy = open_policy(str(fitting_checkpoint), load_robot("widowx"), PolicyOptions())
    first, second = (policy.infer(Observation(images(served, number), PROMPT), seed=3) for number in (0, 8))
    tips = [Tip(state[:3], Rotation.from_rotvec(state[3:6])) for state in states]
    wanted = [osc_action(first.data[number], tips[0], tips[number]) for number in range(8)]
    wanted.append(osc_action(second.data[0], tips[8], tips[8]))
    np.testing.assert_array_equal(np.stack([actions(answer) for answer in answers]), np.float32(wanted))


def test_a_pose_is_not_taken_for_the_joints_that_a_policy_reads() -> None:
    """LIBERO's pose is eight numbers, like a Panda's joints and finger."""
    panda = ServedPolicy("mock://hold", load_robot(str(resource_path("benchmarks/public/libero/libero_panda.yaml"))))
    assert len(panda.state_names) == len(STATE)
    shown = ("observation", observation(panda))
    for error in exchange(panda, ("hello", {"protocol_version": 1}), shown):
        assert error["type"] == "error" and "joint positions (panda_joint1, " in error["payload"]["error"]


def test_an_episode_begins_with_a_chunk_of_its_own(served) -> None:
    first, again, anew = exchange(
        served,
        ("observation", observation(served, 0)),
        ("episode_end", {}),
        ("episode_start", {"task": {}}),
        ("observation", observation(served, 0)),
        ("observation", observation(served, 1)),
    )
    np.testing.assert_array_equal(actions(first), actions(again))
    assert not np.array_equal(actions(again), actions(anew))


def test_a_robot_of_joints_is_told_its_rows_as_they_are() -> None:
    aloha = ServedPolicy("mock://hold", load_robot("aloha"))
    state = np.linspace(0, 0.3, len(aloha.state_names))
    shown = {tag: png(image) for tag, image in images(aloha).items()}
    payload = {"images": shown, "task_description": PROMPT, "states": array(state)}
    hello, step = exchange(aloha, ("hello", {"protocol_version": 1}), ("observation", payload))
    assert hello["payload"]["action_spec"] == {}
    assert actions(step).shape == (len(aloha.metadata["actions"]),)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"images": {}}, "images.ego: missing"),
        ({"images": 3}, "payload.images: must be a map"),
        ({"images": {"agentview": {"__image__": True, "format": "png", "data": b"no"}}}, "payload.images.agentview: "),
        ({"images": {"agentview": {"__image__": True, "format": "png", "data": 3}}}, "payload.images.agentview: "),
        ({"task_description": ""}, "payload.task_description: must be a non-blank string"),
        ({"states": None}, "payload.states: must be numbers [8]"),
    ],
)
def test_an_error_names_the_field_and_leaves_the_connection_open(served, change: dict, told: str) -> None:
    error, step = exchange(served, ("observation", observation(served, **change)), ("observation", observation(served)))
    assert error["type"] == "error" and told in error["payload"]["error"]
    assert step["type"] == "action"


def test_a_bomb_of_an_image_is_not_unpacked(served) -> None:
    stream = io.BytesIO()
    Image.new("L", (8000, 8000)).save(stream, "PNG")
    bomb = {"__image__": True, "format": "png", "data": stream.getvalue(), "shape": [8000, 8000, 3]}
    (error,) = exchange(served, ("observation", observation(served, images={"agentview": bomb})))
    assert "pixels" in error["payload"]["error"]


def test_a_type_that_is_unknown_is_refused(served) -> None:
    (error,) = exchange(served, ("dance", {}))
    assert "type: must be" in error["payload"]["error"]


@pytest.mark.parametrize("page", ["/health", "/config"])
def test_pages_of_plain_http_are_json(served, page: str) -> None:
    async def read():
        queue = InferenceQueue(served)
        listener = WebSocketListener(lambda number: VlaEvalSession(number, served, queue), vla_eval.PAGES)
        port = await listener.start(HOST, 0)
        try:
            return await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{HOST}:{port}{page}").read())
        finally:
            await listener.stop()
            queue.close()

    assert asyncio.run(read()).startswith(b"{")


# --- what a chunk means to the benchmark ------------------------------------------------------------------------------


HERE = Tip(np.array([0.4, 0.1, 0.3]), Rotation.from_euler("y", 90, degrees=True))


def test_a_pose_relative_to_the_tip_becomes_a_step_in_the_base_frame() -> None:
    """The tip points along -z of the base: its forward is down."""
    open_hand, closed_hand = osc_action(row(0.01, 1.0), HERE, HERE), osc_action(row(0.01, 0.0), HERE, HERE)
    np.testing.assert_allclose(open_hand, [0, 0, -0.2, 0, 0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(closed_hand, [0, 0, -0.2, 0, 0, 0, 1], atol=1e-9)


def test_a_controller_that_comes_a_quarter_of_the_way_is_led_to_the_pose() -> None:
    wanted = np.array([0.03, -0.02, 0.01, 0.2, -0.1, 0.15, 1.0])
    tip = HERE
    for _ in range(40):
        step = osc_action(wanted, HERE, tip)
        turn = Rotation.from_rotvec(0.25 * 0.5 * step[3:6])
        tip = Tip(tip.position + 0.25 * 0.05 * step[:3], turn * tip.rotation)
    np.testing.assert_allclose(HERE.rotation.inv().apply(tip.position - HERE.position), wanted[:3], atol=1e-4)
    np.testing.assert_allclose((HERE.rotation.inv() * tip.rotation).as_rotvec(), wanted[3:6], atol=1e-4)


def test_a_step_that_is_too_large_is_cut_to_what_the_controller_takes() -> None:
    assert np.abs(osc_action(np.full(7, 0.9), HERE, HERE)).max() == 1


def row(forward: float, opening: float) -> np.ndarray:
    return np.array([forward, 0, 0, 0, 0, 0, opening])
