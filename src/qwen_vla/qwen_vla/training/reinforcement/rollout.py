# SPDX-License-Identifier: Apache-2.0
"""Roll-outs: whole episodes in parallel environments, one batch of the policy for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from qwen_vla.training.distributed import anyone
from qwen_vla.training.reinforcement.actor import Actor, Decision, Sampling


@dataclass
class Episode:
    """The course of one scene.

    Attributes:
        rewards: one entry per decision, 1 for a successful one.
        refused: decisions whose chunk the gate refused.
        refusals: number of refused chunks by reason.
    """

    scene: int
    instruction: str
    decisions: list[Decision] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    refused: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def success(self) -> bool:
        return bool(self.rewards) and self.rewards[-1] > 0


def roll_out(
    actor: Actor,
    envs: VectorEnv,
    scenes: Sequence[int],
    sampling: Sampling,
    seed: int,
    progress: Callable[[Episode], None] = lambda episode: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Episode] | None:
    """One episode in every scene, in the order of `scenes`; None if `stop` returned True before the end, anywhere.

    Every process has scenes and environments of its own; they decide at the same time, until all are done.

    The noise of a decision depends only on `seed`, the scene and the index of the decision: neither the number of
    environments nor their order affects it. `progress` is called with every finished episode.
    """
    waiting, playing, done = list(scenes), {}, []
    free = list(range(envs.num_envs))
    observation = None
    while anyone(waiting or playing, actor.accelerator):
        if anyone(stop(), actor.accelerator):
            return None
        if not (waiting or playing):
            actor.idle()
            continue
        observation = _start(envs, free, waiting, playing, observation)
        slots = sorted(playing)
        chunks, decisions = _decide(actor, observation, playing, slots, sampling, seed)
        actions = np.full((envs.num_envs, *chunks.shape[1:]), np.nan, np.float32)
        actions[slots] = chunks
        observation, rewards, terminated, truncated, infos = envs.step(actions)
        for slot, decision in zip(slots, decisions, strict=True):
            episode = playing[slot]
            episode.decisions.append(decision)
            episode.rewards.append(float(rewards[slot]))
            episode.refused += int(infos["refused"][slot])
            episode.refusals.update(infos["reasons"][slot].split())
            if terminated[slot] or truncated[slot]:
                done.append(playing.pop(slot))
                free.append(slot)
                progress(episode)
    order = {scene: place for place, scene in enumerate(scenes)}
    return sorted(done, key=lambda episode: order[episode.scene])


def _start(envs: VectorEnv, free: list[int], waiting: list[int], playing: dict[int, Episode], observation):
    """Give every free environment a waiting scene; returns the vector's observation."""
    chosen = [free.pop(0) for _ in range(min(len(free), len(waiting)))]
    if not chosen:
        return observation
    scenes = {slot: waiting.pop(0) for slot in chosen}
    first = observation is None  # an environment without a scene needs an observation, too
    seeds = [scenes.get(slot, scenes[chosen[0]] if first else None) for slot in range(envs.num_envs)]
    mask = np.array([first or slot in scenes for slot in range(envs.num_envs)])
    observation, infos = envs.reset(seed=seeds, options={"reset_mask": mask})  # pyright: ignore[reportArgumentType]  # a seed for each, as all kinds of them take
    for slot, scene in scenes.items():
        playing[slot] = Episode(scene, str(infos["instruction"][slot]))
    return observation


def _decide(actor: Actor, observation, playing: dict[int, Episode], slots: list[int], sampling: Sampling, seed: int):
    seen, generators = [], []
    for slot in slots:
        episode = playing[slot]
        images = {tag: frames[slot] for tag, frames in observation["images"].items()}
        seen.append(actor.see(images, observation["joints"][slot], episode.instruction))
        generators.append(_generator(seed, episode.scene, len(episode.decisions)))
    return actor.decide(seen, generators, sampling)


def _generator(*numbers: int) -> torch.Generator:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
