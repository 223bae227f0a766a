"""Whether the arms would touch each other or the table: what the gate before a robot refuses, seen by MuJoCo."""

from __future__ import annotations

import mujoco
import numpy as np

from qwen_vla_sim.aloha.world import AlohaWorld

TOLERANCE = 1e-4  # [m]


class Clearance:
    """Looks at postures of the robot alone, without the things on the table. Not thread-safe."""

    def __init__(self, world: AlohaWorld) -> None:
        self._model, self._data = world.model, mujoco.MjData(world.model)
        self._columns = [world.model.joint(name).qposadr[0] for name in world.joint_names]
        self._followers = [
            (world.model.joint(f.name).qposadr[0], world.joint_names.index(f.leader), f.multiplier, f.offset)
            for f in world.followers
        ]
        self._names = [world.model.body(body).name for body in range(world.model.nbody)]
        self._robot = np.array([name.startswith("follower_") for name in self._names])
        things = {world.model.body(name).id for name in world.things.all_names}
        self._things = np.isin(np.arange(world.model.nbody), list(things))
        home = np.array([world.embodiment.home[name] for name in world.joint_names])
        self._built_in = self._touching(home)

    def check(self, positions: np.ndarray) -> None:
        """ValueError when two parts touch in a row of a motion (steps + 1, joints) [rad, m]; row 0 is where it starts.

        What touches in row 0 already may come apart.
        """
        allowed = self._built_in | self._touching(positions[0])
        for step, row in enumerate(positions[1:]):
            for first, second in self._touching(row) - allowed:
                raise ValueError(f"step {step}: {self._names[first]} would touch {self._names[second]}")

    def _touching(self, joints: np.ndarray) -> set[tuple[int, int]]:
        """Pairs of bodies, one of them an arm's, that are inside each other."""
        self._data.qpos[self._columns] = joints
        for place, leader, factor, offset in self._followers:
            self._data.qpos[place] = factor * joints[leader] + offset
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)
        if not self._data.ncon:
            return set()
        bodies = self._model.geom_bodyid[self._data.contact.geom]
        deep = self._data.contact.dist < -TOLERANCE
        counts = deep & self._robot[bodies].any(axis=1) & ~self._things[bodies].any(axis=1)
        return {(int(a), int(b)) for a, b in bodies[counts]}
