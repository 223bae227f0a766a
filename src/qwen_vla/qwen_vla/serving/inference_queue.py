# SPDX-License-Identifier: Apache-2.0
"""One thread that runs the policy for all clients: in turn, and in a batch if requests coincide."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from qwen_vla.policies import ActionChunk
from qwen_vla.serving.messages import RequestError
from qwen_vla.serving.request import Request
from qwen_vla.serving.served_policy import ServedPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A chunk, the times that its request waited and was computed [ms], and its batch size."""

    chunk: ActionChunk
    wait_ms: float
    infer_ms: float
    batch: int


@dataclass
class _Job:
    request: Request
    answer: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.perf_counter)

    def settle(self, result: Answer | Exception) -> None:
        """Pass the result to the loop that waits for it, if it still does."""
        self.loop.call_soon_threadsafe(self._set, result)

    def _set(self, result: Answer | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


class InferenceQueue:
    """The client that has waited longest is next; no client has two requests in one batch."""

    def __init__(self, served: ServedPolicy) -> None:
        self._served = served
        self._waiting: OrderedDict[Hashable, deque[_Job]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def infer(self, client: Hashable, request: Request) -> Answer:
        """The chunk that a client requests.

        Raises:
            RequestError: the policy cannot use the observation, or its result is invalid.
        """
        loop = asyncio.get_running_loop()
        job = _Job(request, loop.create_future(), loop)
        with self._changed:
            if self._closed:
                raise RequestError("the server is stopping")
            self._waiting.setdefault(client, deque()).append(job)
            self._changed.notify()
        return await job.answer

    def close(self) -> None:
        """Finish pending requests, accept no more, and join the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            self._run(jobs)

    def _next(self) -> list[_Job]:
        """The requests to be computed next; none if the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            jobs: list[_Job] = []
            for client in list(self._waiting):
                alone = not self._batchable(self._waiting[client][0].request)
                if len(jobs) == self._served.largest_batch or (alone and jobs):
                    break
                jobs.append(self._take(client))
                if alone:
                    break
            return jobs

    def _batchable(self, request: Request) -> bool:
        return request.previous is None

    def _take(self, client: Hashable) -> _Job:
        """The oldest request of a client, which moves to the end of the queue."""
        jobs = self._waiting.pop(client)
        job = jobs.popleft()
        if jobs:
            self._waiting[client] = jobs
        return job

    def _run(self, jobs: Sequence[_Job]) -> None:
        began = time.perf_counter()
        try:
            chunks = self._served.infer([job.request for job in jobs])
        except Exception as error:  # any error: a request may fail, but must not end the thread that serves all others
            self._refuse(jobs, error)
            return
        took = 1e3 * (time.perf_counter() - began)
        for job, chunk in zip(jobs, chunks, strict=True):
            job.settle(Answer(chunk, 1e3 * (began - job.since), took, len(jobs)))

    def _refuse(self, jobs: Sequence[_Job], error: Exception) -> None:
        """Return the error to the client that caused it: the requests of a batch are retried one by one."""
        if len(jobs) > 1:
            for job in jobs:
                self._run([job])
        elif isinstance(error, ValueError | ArithmeticError):
            jobs[0].settle(RequestError(str(error)))
        else:
            logger.error("inference failed", exc_info=error)
            jobs[0].settle(RequestError(f"inference failed with {type(error).__name__}; see the server's log"))
