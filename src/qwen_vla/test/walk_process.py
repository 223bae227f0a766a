# SPDX-License-Identifier: Apache-2.0
"""One process of a reinforcement run on `Walk`: python walk_process.py RECIPE.json STEPS, also below torchrun."""

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

    def reset(self, *, seed=None, options=None):
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
    torch.set_num_threads(1)
    trainer.parallel_envs = walks
    trainer.train(ReinforcementRecipe.model_validate_json(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
