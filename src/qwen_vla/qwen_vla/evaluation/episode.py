# SPDX-License-Identifier: Apache-2.0
"""Runs an episode of a suite: observe, infer, execute the chunk's execution horizon, until success or the end.

Imports no PyTorch, because reinforcement learning runs episodes in worker processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla.policies.chunk_policy import ChunkPolicy, Observation
from qwen_vla.suites import Env, Suite
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.reasons import Refused

MAX_REFUSALS = 5  # in a row, after which the episode ends
AT_REST = 10  # maximum of further steps, to record the end of an episode that ended with the cameras off


@dataclass(frozen=True)
class Look:
    """Camera images at one time: (H, W, 3) uint8 by tag, simulated time [s], and a remark."""

    images: Mapping[str, np.ndarray]
    seconds: float
    remark: str = ""


@dataclass
class Film:
    """Records an episode: the policy's observations and the end; with `every`, also each `every`-th step in between."""

    every: int | None = None
    looks: list[Look] = field(default_factory=list)

    def wants(self, step: int) -> bool:
        """Whether the cameras must be on for control step `step`."""
        return bool(self.every) and step % self.every == 0

    def add(self, env: Env, observation: Mapping[str, Any], remark: str = "") -> None:
        """Record the images of an observation, if it has any."""
        if observation["images"]:
            self.looks.append(Look(observation["images"], env.steps * env.period, remark))


def run_episode(
    suite: Suite,
    env: Env,
    policy: ChunkPolicy,
    seed: int,
    shuffle_instructions: bool = False,
    blind: bool = False,
    film: Film | None = None,
) -> EpisodeRow:
    """Run scene `seed` until success, the suite's step limit or MAX_REFUSALS refused chunks in a row.

    shuffle_instructions: name another target of the scene, but judge the original one. blind: give the policy black
    images. The same arguments give the same episode; recording does not change it.
    """
    observation, info = env.reset(seed=seed)
    instruction = suite.other_instruction(env, seed) if shuffle_instructions else info["instruction"]
    latencies, reasons, refused, in_a_row, truncated = [], Counter(), 0, 0, False
    while not (info["success"] or truncated):
        seen = shown_to(policy, suite, observation, instruction, blind, in_a_row)
        prediction = policy.infer(seen, seed=seed * 1000 + len(latencies))
        latencies.append(prediction.inference_ms["total"])
        path, refusal = planned(suite, Chunk.predicted(prediction, suite.embodiment.base_frame), observation)
        refused, in_a_row = (refused + 1, in_a_row + 1) if refusal else (refused, 0)
        reasons.update(names_of(refusal))
        if film:
            film.add(env, observation, f"refused: {refusal}" if refusal else "")
        if in_a_row == MAX_REFUSALS:
            break
        observation, info, truncated = follow(env, path, film)
    unfinished = "refused too often" if in_a_row == MAX_REFUSALS else "step limit"
    row = EpisodeRow(
        seed=seed,
        instruction=instruction,
        target=info["target"],
        success=bool(info["success"]),
        chunks=len(latencies),
        refused=refused,
        seconds=round(env.steps * env.period, 3),
        distance=float(info["distance"]),
        ended="success" if info["success"] else unfinished,
        latency_ms_p50=float(np.median(latencies)) if latencies else 0.0,
        task=info["task"],
        failure="" if info["success"] else info["failure"],
        metrics={name: float(value) for name, value in info["metrics"].items()},
        refusals=dict(reasons),
    )
    if film and in_a_row < MAX_REFUSALS:  # otherwise the end is already recorded
        _film_the_end(suite, env, observation, film)
    return row


def shown_to(
    policy: ChunkPolicy,
    suite: Suite,
    observation: Mapping[str, Any],
    instruction: str,
    blind: bool = False,
    refusals: int = 0,
) -> Observation:
    """The policy's part of an environment's observation: its cameras and its joints, in its order.

    refusals: see `Observation`.
    """
    images = {tag: observation["images"][tag] for tag in policy.camera_tags}
    joints = dict(zip(suite.embodiment.joint_names, observation.get("joints", ()), strict=False))
    state = np.array([joints[name] for name in policy.state_names]) if policy.state_names else None
    return Observation(_black(images) if blind else images, instruction, state=state, refusals=refusals)


def planned(suite: Suite, chunk: Chunk, observation: Mapping[str, Any]) -> tuple[np.ndarray, Refused | None]:
    """The actions (N, n) until the next chunk, and the refusal of the chunk, if any, on which the robot holds.

    A refused chunk moves nothing and takes its full duration, as on the robot.
    """
    try:
        return suite.plan(chunk, observation), None
    except Refused as refusal:
        steps = min(max(1, chunk.execution_horizon), suite.embodiment.chunk_size)  # the chunk's may be invalid
        return np.repeat(suite.hold(observation)[None], steps, axis=0), refusal


def names_of(refusal: Refused | None) -> tuple[str, ...]:
    """The reason codes of a refusal, each once; none for an accepted chunk."""
    return tuple(reason.name for reason in refusal.reasons) if refusal else ()


def follow(env: Env, path: np.ndarray, film: Film | None = None) -> tuple[dict, dict, bool]:
    """Execute actions (N, n) until their end, success or the step limit; returns the last observation, info, truncated.

    The cameras are on for the last action, and where a film needs them: an episode that ends before has no last images.
    """
    size = env.render_size
    try:
        for action in path[:-1]:
            looks = film is not None and film.wants(env.steps + 1)
            env.render_size = size if looks else None
            observation, _, success, truncated, info = env.step(action)
            if success or truncated:
                return observation, info, truncated
            if looks and film is not None:
                film.add(env, observation, film.looks[-1].remark)
        env.render_size = size
        observation, _, _, truncated, info = env.step(path[-1])
        return observation, info, truncated
    finally:
        env.render_size = size


def _film_the_end(suite: Suite, env: Env, observation: dict, film: Film) -> None:
    for _ in range(AT_REST):
        if observation["images"]:
            break
        observation, *_ = env.step(suite.hold(observation))
    film.add(env, observation)


def _black(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {tag: np.zeros_like(image) for tag, image in images.items()}
