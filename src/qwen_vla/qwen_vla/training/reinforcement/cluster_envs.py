# SPDX-License-Identifier: Apache-2.0
"""Environments on the machines of a Ray cluster. One whose machine is lost is made anew and led to where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from qwen_vla.parallel import WorkerError
from qwen_vla.parallel.cluster import TRIES, Place, connect


class ClusterVectorEnv(VectorEnv):
    """As gymnasium's AsyncVectorEnv without automatic resets, for resets of some environments and steps of all."""

    def __init__(self, make: Callable[[], gymnasium.Env], count: int) -> None:
        self.num_envs = count
        self._simulators = [_Simulator(make) for _ in range(count)]
        self.single_observation_space, self.single_action_space = self._simulators[0].answer_to("spaces")
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)
        self._observations: list[Any] = [None] * count

    def reset(self, *, seed: Any = None, options: Any = None):
        """Start the environments of `options["reset_mask"]`, each from its `seed`; the others stay as they are."""
        chosen, infos = np.flatnonzero(options["reset_mask"]).tolist(), {}
        for slot in chosen:
            self._simulators[slot].begin(seed[slot])
        for slot in chosen:
            self._observations[slot], info = self._simulators[slot].answer()
            infos = self._add_info(infos, info, slot)
        return self._batch(), infos

    def step(self, actions: np.ndarray):
        """One action in each environment."""
        for simulator, action in zip(self._simulators, actions, strict=True):
            simulator.act(action)
        rewards, infos = np.zeros(self.num_envs), {}
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        for slot, simulator in enumerate(self._simulators):
            observation, rewards[slot], terminated[slot], truncated[slot], info = simulator.answer()
            self._observations[slot] = observation
            infos = self._add_info(infos, info, slot)
        return self._batch(), rewards, terminated, truncated, infos

    def close_extras(self, **_: Any) -> None:
        """End all processes."""
        for simulator in self._simulators:
            simulator.close()

    def _batch(self) -> Any:
        empty = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, self._observations, empty)


class _Host:
    """The process of one environment."""

    def __init__(self, place: Place, make: Callable[[], gymnasium.Env]) -> None:
        place.enter()
        self._env = make()

    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        return self._env.observation_space, self._env.action_space

    def reset(self, seed: int | None) -> tuple:
        return self._env.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple:
        return self._env.step(action)


class _Simulator:
    """An environment anywhere: what it was told since its reset is kept, to be told to the next one if it is lost."""

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self._ray = connect()
        self._make, self._place = make, Place.of_this_process()
        self._told: list[tuple[str, Any]] = []
        self._start()

    def begin(self, seed: int | None) -> None:
        self._told.clear()
        self._tell("reset", seed)

    def act(self, action: np.ndarray) -> None:
        self._tell("step", action)

    def answer_to(self, method: str) -> Any:
        """The answer to a question, which changes nothing."""
        return self._ray.get(getattr(self._host, method).remote())

    def answer(self) -> Any:
        """The answer to what it was told last; WorkerError if it failed, or was lost again and again."""
        errors, why = self._ray.exceptions, ""
        for _ in range(TRIES):
            try:
                return self._ray.get(self._answer)
            except errors.RayActorError as error:
                why = str(error).strip().partition("\n")[0]
                self._start()
            except errors.RayTaskError as error:
                raise WorkerError(str(error.cause)) from error
        raise WorkerError(f"a simulator was lost in {TRIES} tries: {why}")

    def close(self) -> None:
        self._ray.kill(self._host)

    def _start(self) -> None:
        """A new process, which is told all again."""
        kind = self._ray.remote(scheduling_strategy="SPREAD")(_Host)
        self._host = kind.remote(self._place, self._make)
        for method, argument in self._told:
            self._answer = getattr(self._host, method).remote(argument)

    def _tell(self, method: str, argument: Any) -> None:
        self._told.append((method, argument))
        self._answer = getattr(self._host, method).remote(argument)
