# SPDX-License-Identifier: Apache-2.0
"""One process of a reinforcement run on `Walk`, also below torchrun: python walk_process.py RECIPE.json STEPS [SCENE].

The process that starts SCENE gets SIGTERM there.
"""

import signal
import sys
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qwen_vla.training.reinforcement import trainer
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe


class Walk(gymnasium.Env):
    """Episodes of one to three decisions, depending on the scene; success if the last chunk leads forward."""

    observation_space = gymnasium.spaces.Dict(
        {"images": gymnasium.spaces.Dict({}), "joints": gymnasium.spaces.Box(-1, 1, (7,))}
    )
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (4, 7), np.float32)

    stopping_scene = None

    def reset(self, *, seed=None, options=None):
        if seed is not None and seed == self.stopping_scene:
            signal.raise_signal(signal.SIGTERM)
        self.left = 1 + seed % 3
        return self._observed(), {"instruction": f"walk {seed % 5} steps"}

    def step(self, action):
        ended = False
        if not np.isnan(action).all():
            self.left -= 1
            ended = self.left == 0
        success = ended and action[:2, 0].mean() > 0
        return self._observed(), float(success), ended, False, {"refused": self.left == 1, "reasons": ""}

    @staticmethod
    def _observed():
        return {"images": {}, "joints": np.zeros(7, np.float32)}


class WalksInStep(SyncVectorEnv):
    """Steps environments that have ended, too, as AsyncVectorEnv does, which training uses."""

    def step(self, actions):
        self._autoreset_envs[:] = False
        return super().step(actions)


def walks(_suite, count, *_):
    return WalksInStep([Walk] * count, autoreset_mode=AutoresetMode.DISABLED)


if __name__ == "__main__":
    recipe, steps, *scene = sys.argv[1:]
    torch.set_num_threads(1)
    trainer.parallel_envs = walks
    Walk.stopping_scene = int(scene[0]) if scene else None
    trainer.train(ReinforcementRecipe.model_validate_json(Path(recipe).read_text()), int(steps))
