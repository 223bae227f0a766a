# SPDX-License-Identifier: Apache-2.0
"""Whether parts of the robot would touch: checks its URDF's collision shapes with pinocchio and coal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pinocchio as pin

from embodiment_descriptions.link_poses import as_moved
from qwen_vla_control.reasons import Reason, Violation

LARGEST_STEP = 0.05  # [rad | m] between two checked configurations
TOLERANCE = 1e-4  # [m] rounding of distances: parts that slide along each other do not touch


class SelfCollision:
    """Finds the first configuration of a motion in which two parts touch.

    Ignored are parts of one link, of neighboring links, and those that already touch in the home pose: they are built
    to touch there, or modeled too large. A motion that begins with two parts touching may separate them, not push them
    farther into each other. Not thread-safe: pinocchio's data is reused.
    """

    def __init__(self, urdf: str, joints: Sequence[str], home: np.ndarray) -> None:
        """Build the shapes.

        Args:
            urdf: expanded text; pinocchio resolves the meshes.
            joints: order of the columns of a motion.
            home: (joints,) configuration that is free of collisions.

        Raises:
            ValueError: the URDF cannot be read, or has no collision shapes.
        """
        followers, xml = as_moved(urdf)
        try:
            self._model = pin.buildModelFromXML(xml)
            self._shapes = pin.buildGeomFromUrdfString(self._model, xml, pin.GeometryType.COLLISION)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"self-collision cannot be checked: {error}") from error
        if self._shapes.ngeoms < 2:
            raise ValueError("self-collision cannot be checked: the URDF has no collision shapes; add <collision>")
        places = {name: self._model.joints[self._model.getJointId(name)].idx_q for name in self._model.names[1:]}
        self._columns = [places[name] for name in joints]
        self._follows = [(places[name], places[to.joint], to) for name, to in followers.items()]
        self._data, self._q = self._model.createData(), pin.neutral(self._model)
        pairs = self._pairs_between_parts()
        self._watch(pairs, TOLERANCE)
        self._place(home)
        touching = set(self._touching())
        self._watch([pair for index, pair in enumerate(pairs) if index not in touching], -TOLERANCE)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of the links whose shapes are checked against each other."""
        return [self._names(index) for index in range(len(self._shapes.collisionPairs))]

    def check(self, positions: np.ndarray) -> list[Violation]:
        """Check a motion (steps + 1, joints) [rad | m], between its rows as well; row 0 is where the robot is."""
        self._place(positions[0])
        depths = {pair: self._distance(pair) for pair in self._touching()}
        for pair in depths:
            self._results.deactivateCollisionPair(pair)
        try:
            for step, (start, end) in enumerate(zip(positions, positions[1:], strict=False)):
                parts = max(1, int(np.ceil(np.abs(end - start).max() / LARGEST_STEP)))
                for part in range(1, parts + 1):
                    self._place(start + (end - start) * part / parts)
                    touching = self._deeper(depths) or self._touching()
                    if touching:
                        first, second = self._names(touching[0])
                        return [Violation(Reason.SELF_COLLISION, f"step {step}: '{first}' would touch '{second}'")]
        finally:
            for pair in depths:
                self._results.activateCollisionPair(pair)
        return []

    def _place(self, positions: np.ndarray) -> None:
        q = self._q
        q[self._columns] = positions
        for column, source, mimic in self._follows:
            q[column] = mimic.factor * q[source] + mimic.offset
        pin.updateGeometryPlacements(self._model, self._data, self._shapes, self._results, q)

    def _touching(self) -> list[int]:
        """Active pairs that are in collision."""
        self._tree.update(False)
        if not pin.computeCollisions(self._tree, True):  # fast, but does not report the pairs
            return []
        pin.computeCollisions(self._shapes, self._results, False)
        active = self._results.activeCollisionPairs
        return [
            pair for pair, result in enumerate(self._results.collisionResults) if active[pair] and result.isCollision()
        ]

    def _deeper(self, depths: dict[int, float]) -> list[int]:
        """Pairs that penetrate deeper than before; a pair that separated, or came less deep, must stay that way."""
        for pair, depth in depths.items():
            distance = self._distance(pair)
            if distance < depth - TOLERANCE:
                return [pair]
            depths[pair] = max(depth, min(distance, 0.0))
        return []

    def _distance(self, pair: int) -> float:
        """Distance [m], negative where they penetrate."""
        return pin.computeDistance(self._shapes, self._results, pair).min_distance

    def _pairs_between_parts(self) -> list[tuple[int, int]]:
        """Shapes of links that are neither the same nor neighbors."""
        parent_of = [shape.parentJoint for shape in self._shapes.geometryObjects]
        above = list(self._model.parents)

        def are_apart(a: int, b: int) -> bool:
            return a != b and above[a] != b and above[b] != a

        return [(i, k) for i, k in combinations(range(len(parent_of)), 2) if are_apart(parent_of[i], parent_of[k])]

    def _watch(self, pairs: Sequence[tuple[int, int]], margin: float) -> None:
        """Check these pairs from now on; two parts touch when they are closer than `margin` [m]."""
        self._shapes.removeAllCollisionPairs()
        for first, second in pairs:
            self._shapes.addCollisionPair(pin.CollisionPair(first, second))
        self._results = pin.GeometryData(self._shapes)
        for request in self._results.collisionRequests:
            request.security_margin = margin
        self._tree = pin.BroadPhaseManager_DynamicAABBTreeCollisionManager(self._model, self._shapes, self._results)

    def _names(self, pair: int) -> tuple[str, str]:
        places = self._shapes.collisionPairs[pair]
        objects = (self._shapes.geometryObjects[i] for i in (places.first, places.second))
        first, second = (self._model.frames[o.parentFrame].name for o in objects)
        return first, second
