# SPDX-License-Identifier: Apache-2.0
"""openpi's protocol, spoken by clients that behave and by those that do not, to one small model."""

import asyncio
import socket
import urllib.error
import urllib.request

import msgpack
import numpy as np
import pytest
from serving_peers import HOST, PROMPT, HeldPolicy, ask, client, images, listening
from websockets.exceptions import ConnectionClosed, InvalidStatus

from embodiment_descriptions import load_robot
from qwen_vla.policies import Observation, PolicyOptions, open_policy
from qwen_vla.policies.identity import checkpoint_hash
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.websocket_listener import Limits


@pytest.fixture(scope="module")
def robot():
    return load_robot("widowx")


@pytest.fixture(scope="module")
def served(fitting_checkpoint, robot):
    return ServedPolicy(str(fitting_checkpoint), robot)


@pytest.fixture(scope="module")
def policy(fitting_checkpoint, robot):
    return open_policy(str(fitting_checkpoint), robot, PolicyOptions())


def one(served, fields: dict, **options):
    """The answer to one message."""

    async def exchange():
        async with listening(served, **options) as (address, _), client(address) as connection:
            return await ask(connection, fields)

    return asyncio.run(exchange())


# --- clients that behave ----------------------------------------------------------------------------------------------


def test_the_metadata_say_what_is_needed_and_what_is_answered(served, robot, fitting_checkpoint) -> None:
    async def metadata():
        async with listening(served) as (address, _), client(address) as connection:
            return connection.metadata

    told = asyncio.run(metadata())
    assert told["cameras"] == ["ego", "cam_wrist"]
    assert told["state"] == []
    assert [(channel["name"], channel["unit"]) for channel in told["actions"]] == [
        ("x", "m"), ("y", "m"), ("z", "m"), ("rx", "rad"), ("ry", "rad"), ("rz", "rad"), ("gripper", "1"),
    ]  # fmt: skip
    assert (told["horizon"], told["period"], told["execution_horizon"]) == (16, 0.2, 8)
    assert (told["control_mode"], told["embodiment"]) == ("eef_delta", "widowx")
    assert told["prompt_template"] == robot.prompt("{instruction}")
    assert told["checkpoint_hash"] == checkpoint_hash(fitting_checkpoint)
    assert told["continues"] is True


def test_the_actions_are_those_of_the_policy_bit_for_bit(served, policy) -> None:
    answer = one(served, {"images": images(served), "prompt": PROMPT, "seed": 5})
    wanted = policy.infer(Observation(images(served), PROMPT), seed=5)
    assert answer["actions"].dtype == np.float32
    np.testing.assert_array_equal(answer["actions"], wanted.data)


def test_the_flat_spelling_means_the_same(served) -> None:
    flat = {f"observation/{tag}": image for tag, image in images(served).items()}
    nested = one(served, {"images": images(served), "prompt": PROMPT, "seed": 1})
    np.testing.assert_array_equal(one(served, {**flat, "prompt": PROMPT, "seed": 1})["actions"], nested["actions"])


def test_times_come_with_each_answer_and_those_of_the_whole_from_the_second(served) -> None:
    async def two():
        async with listening(served) as (address, _), client(address) as connection:
            return [await ask(connection, {"images": images(served), "prompt": PROMPT}) for _ in range(2)]

    first, second = asyncio.run(two())
    assert first["server_timing"]["infer_ms"] > 0 and "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"]


def test_roboarena_resets_and_infers_in_one_session(served) -> None:
    async def session():
        async with listening(served) as (address, _), client(address) as connection:
            reset = await ask(connection, {"endpoint": "reset", "session_id": "a"})
            fields = {"images": images(served), "prompt": PROMPT, "endpoint": "infer", "session_id": "a"}
            return reset, await ask(connection, fields)

    reset, answer = asyncio.run(session())
    assert reset == "reset successful"
    assert answer["actions"].shape == (16, 7)


def test_roboarena_state_is_its_joints_and_its_gripper() -> None:
    aloha = ServedPolicy("mock://hold", load_robot("aloha"))
    state = np.linspace(0.0, 0.3, len(aloha.state_names))
    fields = {"images": images(aloha), "prompt": PROMPT}
    parts = {"observation/joint_position": state[:-1], "observation/gripper_position": state[-1:]}
    whole = one(aloha, {**fields, "state": state})["actions"]
    np.testing.assert_array_equal(one(aloha, {**fields, **parts})["actions"], whole)


def test_health_is_asked_by_plain_http(served) -> None:
    async def health():
        async with listening(served, api_key="secret") as (address, _):
            url = address.replace("ws", "http", 1) + "/healthz"
            return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())

    assert asyncio.run(health()) == b"OK\n"


def test_a_chunk_is_continued_as_the_policy_continues_it(served, policy) -> None:
    pose = np.eye(4)
    first = policy.infer(Observation(images(served), PROMPT, tip_poses={"": pose}), seed=1)
    moved = pose.copy()
    moved[0, 3] = 0.01
    wanted = policy.continue_chunk(
        Observation(images(served, 1), PROMPT, tip_poses={"": moved}), first, 2, 8, consumed=4, seed=2
    )
    fields = {"images": images(served, 1), "prompt": PROMPT, "seed": 2, "tip_poses": moved, "consumed": 4}
    fields |= {"previous_chunk": first.data, "previous_tip_poses": pose, "inference_delay": 2, "execution_horizon": 8}
    answer = one(served, fields)
    np.testing.assert_array_equal(answer["actions"], wanted.data)
    assert answer["inference_delay"] == wanted.inference_delay == 2


# --- clients that do not ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, told",
    [
        ({"images": {}}, "images.ego: missing; the policy needs ego, cam_wrist"),
        ({"images": []}, "images: must be a map"),
        ({"observation/front": np.zeros((4, 4, 3), np.uint8)}, "observation/front: no such camera"),
        ({"observation/ego": np.zeros((4, 4, 3), np.uint8)}, "images.ego: given twice"),
        ({"prompt": None}, "prompt: must be a non-blank string"),
        ({"prompt": " "}, "prompt: must be a non-blank string"),
        ({"prompt": "a" * 5000}, "prompt: must be a non-blank string"),
        ({"prompt": 3}, "prompt: must be a non-blank string"),
        ({"seed": -1}, "seed: must be an integer"),
        ({"seed": 2**63}, "seed: must be an integer"),
        ({"seed": 1.5}, "seed: must be an integer"),
        ({"endpoint": "kill"}, "endpoint: must be infer, reset; got"),
        ({"endpoint": np.zeros(3)}, "endpoint: must be infer, reset; got an array"),
        ({"schedule": np.zeros(3), "previous_chunk": np.zeros((16, 7)), "consumed": 1}, "schedule: must be"),
        ({"session_id": 7}, "session_id: must be a non-blank string"),
        ({"previous_chunk": np.zeros((16, 7)), "tip_poses": np.eye(4)}, "consumed: missing"),
        (
            {"previous_chunk": np.zeros((16, 7)), "consumed": 1, "schedule": "steep"},
            "schedule: must be exponential, linear",
        ),
        ({"previous_chunk": np.zeros((3, 7)), "consumed": 1}, "previous_chunk: must be numbers [16, 7]"),
        ({"previous_chunk": np.full((16, 7), np.nan), "consumed": 1}, "previous_chunk: must be finite"),
        ({"previous_chunk": np.zeros((16, 7)), "consumed": 1}, "tip_poses in both observations"),
        ({"tip_poses": np.eye(3)}, "tip_poses: must be numbers [4, 4]"),
        ({"tip_poses": {"left": np.eye(4)}}, "tip_poses: must be a pose for each arm"),
    ],
)
def test_a_request_that_cannot_be_answered_gets_a_text_that_names_the_field(served, change: dict, told: str) -> None:
    answer = one(served, {"images": images(served), "prompt": PROMPT} | change)
    assert isinstance(answer, str) and told in answer


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 24, 32), np.uint8),
        np.zeros((24, 32), np.uint8),
        np.zeros((24, 32, 3), np.float32),
        np.zeros((0, 32, 3), np.uint8),
        np.zeros((1, 9000, 3), np.uint8),
        np.zeros((2, 24, 32, 3), np.uint8),
        [[0, 0, 0]],
        "picture",
    ],
)
def test_an_image_that_is_none_is_named(served, image) -> None:
    answer = one(served, {"images": images(served) | {"cam_wrist": image}, "prompt": PROMPT})
    assert isinstance(answer, str) and answer.startswith("images.cam_wrist: ")


def test_after_an_error_the_connection_is_closed_as_openpi_does(served) -> None:
    async def closed():
        async with listening(served) as (address, _), client(address) as connection:
            await ask(connection, {"prompt": "go"})
            await connection.wait_closed()
            return connection.close_code, connection.close_reason

    code, reason = asyncio.run(closed())
    assert code == 1011 and reason.startswith("images.ego: missing")


def test_a_frame_above_the_limit_is_refused_before_it_is_read(served) -> None:
    async def oversized():
        async with listening(served, Limits(frame_bytes=100_000)) as (address, _), client(address) as connection:
            with pytest.raises(ConnectionClosed):
                await ask(connection, {"prompt": "a" * 200_000})
            return connection.close_code, connection.close_reason

    code, reason = asyncio.run(oversized())
    assert code == 1009 and "100000" in reason


@pytest.mark.parametrize("key", [None, "wrong", "secrets", "Secret"])
def test_without_the_key_nobody_gets_in(served, key) -> None:
    headers = {"Authorization": f"Api-Key {key}"} if key else {}

    async def refused():
        async with listening(served, api_key="secret") as (address, _):
            async with client(address, additional_headers={"Authorization": "Api-Key secret"}) as known:
                assert known.metadata
            async with client(address, additional_headers=headers):
                pass

    with pytest.raises(InvalidStatus, match="401"):
        asyncio.run(refused())


def test_more_clients_than_allowed_are_turned_away_and_the_others_stay(served) -> None:
    async def crowded():
        async with listening(served, Limits(clients=1)) as (address, _), client(address) as first:
            with pytest.raises(InvalidStatus, match="503"):
                async with client(address):
                    pass
            return await ask(first, {"images": images(served), "prompt": PROMPT})

    assert asyncio.run(crowded())["actions"].shape == (16, 7)


def test_clients_that_stall_or_talk_nonsense_hold_nobody_up(served) -> None:
    async def beside_others():
        async with listening(served) as (address, _):
            port = int(address.rsplit(":", 1)[1])
            _, stalled = await asyncio.open_connection(HOST, port)
            stalled.write(b"GET / HTTP/1.1\r\nHost:")  # and never goes on
            _, nonsense = await asyncio.open_connection(HOST, port)
            nonsense.write(b"\x16\x03\x01" + bytes(500))
            async with client(address) as silent, client(address) as gone, client(address) as well:
                await silent.send(b"\x81")
                gone.transport.abort()
                answers = [await ask(well, {"images": images(served), "prompt": PROMPT}) for _ in range(3)]
            stalled.close()
            nonsense.close()
            return answers

    assert all(answer["actions"].shape == (16, 7) for answer in asyncio.run(asyncio.wait_for(beside_others(), 60)))


def test_a_machine_that_is_gone_is_noticed_by_the_system_and_a_busy_client_is_left_alone(served) -> None:
    async def options():
        async with listening(served) as (address, listener), client(address) as connection:
            (there,) = listener._open
            kept = there.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return kept, there.ping_interval, await ask(connection, {"images": images(served), "prompt": PROMPT})

    kept, pings, answer = asyncio.run(options())
    assert kept and pings is None and answer["actions"].shape == (16, 7)


def test_a_foreign_field_is_not_in_the_way(served) -> None:
    answer = one(served, {"images": images(served), "prompt": PROMPT, "episode": 3})
    assert answer["actions"].shape == (16, 7)


def test_stopping_answers_what_runs_and_then_closes(served) -> None:
    held = HeldPolicy("mock://hold")

    async def stop():
        async with listening(held) as (address, listener), client(address) as busy, client(address) as idle:
            fields = {"images": images(held), "prompt": PROMPT, "state": np.zeros(len(held.state_names))}
            asked = asyncio.create_task(ask(busy, fields))
            await asyncio.to_thread(held.entered.wait)
            stopped = asyncio.create_task(listener.stop())
            await idle.wait_closed()
            held.released.set()
            answer = await asked
            await busy.wait_closed()
            await stopped
            return answer, idle.close_code, busy.close_code

    answer, idle, busy = asyncio.run(stop())
    assert answer["actions"].shape == held.chunk_shape
    assert (idle, busy) == (1001, 1001)


def test_a_client_that_packs_its_own_frames_is_understood(served) -> None:
    """As a client without NumPy does it, in C++ say."""
    array = {b"__ndarray__": True, b"data": bytes(3 * 8 * 8), b"dtype": "|u1", b"shape": [8, 8, 3]}

    async def exchange():
        async with listening(served) as (address, _), client(address) as connection:
            await connection.send(msgpack.packb({"images": {"ego": array, "cam_wrist": array}, "prompt": "go"}))
            return msgpack.unpackb(await connection.recv(), raw=True)

    actions = asyncio.run(exchange())[b"actions"]
    assert actions[b"dtype"] == b"<f4" and list(actions[b"shape"]) == [16, 7] and len(actions[b"data"]) == 4 * 16 * 7


def test_plain_http_for_anything_else_is_told_that_this_is_a_websocket(served) -> None:
    def status(url: str) -> int:
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(url, timeout=10)
        with told.value:
            return told.value.code

    async def page():
        async with listening(served) as (address, _):
            return await asyncio.to_thread(status, address.replace("ws", "http", 1) + "/elsewhere")

    assert asyncio.run(page()) == 426
