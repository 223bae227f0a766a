# SPDX-License-Identifier: Apache-2.0
"""GR00T's protocol, spoken by a client that was written from its publication, in both spellings of arrays."""

import asyncio
from collections.abc import Callable

import msgpack
import numpy as np
import pytest
import zmq
from groot_client import GrootClient, msgpack_numpy, npy
from serving_peers import HOST, PROMPT, HeldPolicy, images

from embodiment_descriptions import load_robot
from qwen_vla.policies import Observation, PolicyOptions, open_policy
from qwen_vla.serving.groot import GrootListener
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.websocket_listener import Limits


@pytest.fixture(scope="module")
def served(fitting_checkpoint):
    return ServedPolicy(str(fitting_checkpoint), load_robot("widowx"))


def with_server(served: ServedPolicy, use: Callable, limits: Limits | None = None, api_key: str = ""):
    """What a function gives that is called, in a thread of its own, with the port of a running server."""

    async def run():
        queue = InferenceQueue(served)
        listener = GrootListener(served, queue, limits, api_key)
        port = await listener.start(HOST, 0)
        try:
            return await asyncio.to_thread(use, port)
        finally:
            await listener.stop()
            queue.close()

    return asyncio.run(run())


def observation(served: ServedPolicy, batch: int = 1) -> dict:
    seen = [images(served, number) for number in range(batch)]
    video = {tag: np.stack([each[tag][None] for each in seen]) for tag in served.cameras}
    return {"video": video, "state": {}, "language": {"task": [[PROMPT]] * batch}}


def call(served, endpoint: str, data: dict | None = None, encode=npy, token: str = "", **server):
    """The answer to one call."""

    def use(port: int):
        with GrootClient(port, encode, token) as client:
            return client.call(endpoint, data)

    return with_server(served, use, **server)


@pytest.mark.parametrize("encode, mark", [(npy, b"__ndarray_class__"), (msgpack_numpy, b"\xc4\x02nd")])
def test_actions_are_those_of_the_policy_in_the_spelling_of_the_request(
    served, fitting_checkpoint, encode, mark
) -> None:
    def use(port: int):
        with GrootClient(port, encode) as client:
            return client.call("get_action", {"observation": observation(served), "options": {"seed": 4}}), client.frame

    (actions, info), frame = with_server(served, use)
    policy = open_policy(str(fitting_checkpoint), load_robot("widowx"), PolicyOptions())
    wanted = policy.infer(Observation(images(served), PROMPT), seed=4)
    assert mark in frame
    assert actions["action"].dtype == np.float32
    np.testing.assert_array_equal(actions["action"], wanted.data[None])
    assert info["embodiment"] == "widowx" and info["execution_horizon"] == 8


def test_a_batch_of_environments_gets_an_action_each(served) -> None:
    three, _ = call(served, "get_action", {"observation": observation(served, 3), "options": {"seed": 4}})
    alone, _ = call(served, "get_action", {"observation": observation(served), "options": {"seed": 4}})
    assert three["action"].shape == (3, 16, 7)
    np.testing.assert_allclose(three["action"][:1], alone["action"], atol=1e-5)


def test_a_state_may_come_in_parts() -> None:
    aloha = ServedPolicy("mock://hold", load_robot("aloha"))
    state = np.linspace(0, 0.3, len(aloha.state_names), dtype=np.float32)
    whole, parts = observation(aloha), observation(aloha)
    whole["state"] = {"state": state[None, None]}
    parts["state"] = {"left": state[None, None, :6], "right": state[None, None, 6:]}
    (first, _), (second, _) = (call(aloha, "get_action", {"observation": seen}) for seen in (whole, parts))
    np.testing.assert_array_equal(first["action"], second["action"])


def test_the_next_request_may_come_as_soon_as_the_reply(served) -> None:
    def use(port: int) -> list:
        with GrootClient(port) as client:
            return [client.call("ping")["status"] for _ in range(500)]

    assert with_server(served, use) == ["ok"] * 500


def test_the_other_endpoints_answer(served) -> None:
    assert call(served, "ping") == {"status": "ok", "message": "Server is running"}
    assert call(served, "reset", {"options": None}) == {}
    config = call(served, "get_modality_config")
    assert config["video"]["as_json"]["modality_keys"] == ["ego", "cam_wrist"]
    assert config["action"]["as_json"]["delta_indices"] == list(range(16))


@pytest.mark.parametrize(
    "change, told",
    [
        ({"video": {}}, "images.ego: missing"),
        ({"video": {"ego": np.zeros((1, 24, 32, 3), np.uint8)}}, "observation.video.ego: must be (B, T, H, W, 3)"),
        ({"video": {"ego": np.zeros((2, 1, 24, 32, 3), np.uint8)}}, "observation.video.ego: must be (B, T, H, W, 3)"),
        ({"video": {"front": np.zeros((1, 1, 24, 32, 3), np.uint8)}}, "observation.video.front: no such camera"),
        ({"language": {}}, "observation.language: must be one entry"),
        ({"language": {"task": []}}, "observation.language: must be a list"),
        ({"language": {"task": [[3]]}}, "observation.language: must be a non-blank string"),
        ({"state": {"state": np.zeros(3)}}, "observation.state.state: must be (B, T, D)"),
        ({"state": np.zeros(2)}, "observation.state: must be a map"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(served, change: dict, told: str) -> None:
    answer = call(served, "get_action", {"observation": observation(served) | change})
    assert told in answer["error"]


@pytest.mark.parametrize(
    "endpoint, told", [("kill", "kill is not available to clients"), ("dance", "endpoint: must be")]
)
def test_an_endpoint_that_is_not_offered_is_refused(served, endpoint: str, told: str) -> None:
    def use(port: int):
        with GrootClient(port) as client:
            return client.call(endpoint), client.call("ping")["status"]

    answer, still = with_server(served, use)
    assert told in answer["error"] and still == "ok"


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_the_token_nothing_is_answered(served, token: str) -> None:
    assert "Invalid API token" in call(served, "ping", token=token, api_key="secret")["error"]
    assert call(served, "ping", token="secret", api_key="secret")["status"] == "ok"


def test_nonsense_and_messages_that_are_none_hinder_nobody(served) -> None:
    nonsense = (b"", b"\xc1", msgpack.packb([1]), b"\x91" * 9999)

    def use(port: int) -> list:
        context = zmq.Context()
        stranger = context.socket(zmq.DEALER)
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(f"tcp://{HOST}:{port}")
        stranger.send(b"no delimiter")
        stranger.send_multipart([b"", b"a", b"b"])
        for _ in range(50):
            stranger.send_multipart([b"", msgpack.packb({"endpoint": "ping"})])
        try:
            with GrootClient(port) as client:
                wrong = [client.call_raw(frame)["error"] for frame in nonsense]
                actions, _ = client.call("get_action", {"observation": observation(served)})
                return [*wrong, actions["action"].shape]
        finally:
            stranger.close()
            context.term()

    *wrong, shape = with_server(served, use)
    assert len(wrong) == 4 and shape == (1, 16, 7)


def test_a_message_above_the_limit_is_never_read(served) -> None:
    def use(port: int):
        with GrootClient(port) as large:
            large._socket.setsockopt(zmq.RCVTIMEO, 500)
            with pytest.raises(zmq.Again):
                large.call_raw(bytes(200_000))
        with GrootClient(port) as client:
            return client.call("ping")["status"]

    assert with_server(served, use, limits=Limits(frame_bytes=100_000)) == "ok"


def test_stopping_answers_what_runs() -> None:
    held = HeldPolicy("mock://hold")

    async def stop():
        queue = InferenceQueue(held)
        listener = GrootListener(held, queue)
        port = await listener.start(HOST, 0)
        seen = observation(held) | {"state": {"state": np.zeros((1, 1, len(held.state_names)), np.float32)}}

        def ask():
            with GrootClient(port) as client:
                return client.call("get_action", {"observation": seen})

        asked = asyncio.create_task(asyncio.to_thread(ask))
        await asyncio.to_thread(held.entered.wait)
        stopped = asyncio.create_task(listener.stop())
        held.released.set()
        await stopped
        queue.close()
        return await asked

    actions, _ = asyncio.run(stop())
    assert actions["action"].shape == (1, *held.chunk_shape)
