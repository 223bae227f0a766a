# SPDX-License-Identifier: Apache-2.0
"""One policy for many clients: everybody's turn comes, requests that meet are computed together, faults stay alone."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from serving_peers import HeldPolicy, request

from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.messages import RequestError


@pytest.fixture
def held():
    return HeldPolicy("mock://hold")


async def _all(queue: InferenceQueue, held: HeldPolicy, asked: list[tuple[str, int]], requests: dict | None = None):
    """What becomes of requests (client, seed) that all wait behind a first one."""
    first = asyncio.create_task(queue.infer("first", request(held, 0)))
    await asyncio.to_thread(held.entered.wait)
    tasks = []
    for client, seed in asked:
        tasks.append(asyncio.create_task(queue.infer(client, (requests or {}).get(seed) or request(held, seed))))
        await asyncio.sleep(0)  # the task runs up to its place in the queue
    held.released.set()
    return await asyncio.gather(first, *tasks, return_exceptions=True)


def test_a_client_with_many_requests_waits_for_those_with_one(held) -> None:
    queue = InferenceQueue(held)
    asyncio.run(_all(queue, held, [("greedy", 1), ("greedy", 2), ("greedy", 3), ("modest", 4), ("late", 5)]))
    queue.close()
    assert held.computed == [[0], [1], [4], [5], [2], [3]]


def test_requests_that_meet_are_computed_together_one_of_each_client(held) -> None:
    held.largest_batch = 3
    queue = InferenceQueue(held)
    answers = asyncio.run(_all(queue, held, [("a", 1), ("a", 2), ("b", 3), ("c", 4), ("d", 5)]))
    queue.close()
    assert held.computed == [[0], [1, 3, 4], [5, 2]]
    assert [answer.batch for answer in answers] == [1, 3, 2, 3, 3, 2]


def test_of_a_batch_only_the_faulty_request_fails(held) -> None:
    held.largest_batch = 4
    good = request(held, 1)
    wrong = replace(good, observation=replace(good.observation, state=np.zeros(1)))
    queue = InferenceQueue(held)
    answers = asyncio.run(_all(queue, held, [("a", 1), ("b", 2), ("c", 3)], {2: wrong}))
    queue.close()
    assert [type(answer).__name__ for answer in answers] == ["Answer", "Answer", "RequestError", "Answer"]
    assert "the state must be" in str(answers[2])


def test_whatever_the_policy_raises_the_next_request_is_answered(held, monkeypatch) -> None:
    held.released.set()
    queue = InferenceQueue(held)

    async def two() -> tuple:
        with monkeypatch.context() as patch:
            patch.setattr(held._policy, "infer", lambda *_: {}["secret of the server"])
            with pytest.raises(RequestError, match="inference failed with KeyError") as told:
                await queue.infer("a", request(held, 1))
        return told.value, await queue.infer("a", request(held, 2))

    told, answer = asyncio.run(two())
    queue.close()
    assert "secret" not in str(told)
    assert answer.chunk.data.shape == held.chunk_shape


def test_closing_finishes_what_was_asked_for_and_takes_nothing_more(held) -> None:
    queue = InferenceQueue(held)

    async def close_meanwhile() -> list:
        asked = [asyncio.create_task(queue.infer(client, request(held, client))) for client in range(3)]
        await asyncio.to_thread(held.entered.wait)
        closed = asyncio.create_task(asyncio.to_thread(queue.close))
        held.released.set()
        await closed
        with pytest.raises(RequestError, match="stopping"):
            await queue.infer("late", request(held, 9))
        return await asyncio.gather(*asked)

    assert len(asyncio.run(close_meanwhile())) == 3


def test_a_client_that_gave_up_does_not_hinder_the_others(held) -> None:
    queue = InferenceQueue(held)

    async def give_up() -> object:
        first = asyncio.create_task(queue.infer("gone", request(held, 1)))
        await asyncio.to_thread(held.entered.wait)
        second = asyncio.create_task(queue.infer("there", request(held, 2)))
        await asyncio.sleep(0)
        first.cancel()
        held.released.set()
        return await second

    assert asyncio.run(give_up()).batch == 1
    queue.close()
