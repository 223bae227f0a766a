"""Whether parts of the robot would touch: the collision shapes of its URDF, with pinocchio and coal."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin

from qwen_vla_ros.gate.verdict import Reason, Violation

LARGEST_STEP = 0.05  # [rad | m] between two postures that are looked at
TOLERANCE = 1e-4  # [m] rounding of distances, while two parts that touch move apart
JOINT_TYPES = ("revolute", "continuous", "prismatic")


class SelfCollision:
    """Finds the first posture of a motion in which two parts touch.

    Not looked at are parts of one link, of neighbouring links, and those that touch in the home posture already: what
    is built to touch there, or drawn too large. A motion that begins with two parts touching may take them apart, not
    farther into each other. Not thread-safe: pinocchio's work space is reused.
    """

    def __init__(self, urdf: str, joints: Sequence[str], home: np.ndarray) -> None:
        """Build the shapes.

        Args:
            urdf: expanded text; meshes are found as pinocchio finds them.
            joints: order of the columns of a motion.
            home: (joints,) posture that is free of collisions.

        Raises:
            ValueError: the URDF cannot be read, or has no collision shapes.
        """
        self._mimics, xml = _as_moved(urdf)
        try:
            self._model = pin.buildModelFromXML(xml)
            self._shapes = pin.buildGeomFromUrdfString(self._model, xml, pin.GeometryType.COLLISION)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"self-collision cannot be checked: {error}") from error
        if self._shapes.ngeoms < 2:
            raise ValueError("self-collision cannot be checked: the URDF has no collision shapes; add <collision>")
        places = {name: self._model.joints[self._model.getJointId(name)].idx_q for name in self._model.names[1:]}
        self._columns = [places[name] for name in joints]
        self._follows = [(places[name], places[of], k, shift) for name, of, k, shift in self._mimics]
        self._data = self._model.createData()
        self._shapes.addAllCollisionPairs()
        self._leave_out_neighbours()
        self._leave_out_touching(home)
        self._results = pin.GeometryData(self._shapes)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of the links whose shapes are checked against each other."""
        return [self._names(index) for index in range(len(self._shapes.collisionPairs))]

    def check(self, positions: np.ndarray) -> list[Violation]:
        """Check a motion (steps + 1, joints) [rad | m], between its rows as well; row 0 is where the robot is."""
        distances = self._distances(positions[0])
        allowed = np.minimum(distances, 0.0) - TOLERANCE
        for step, (start, end) in enumerate(zip(positions, positions[1:], strict=False)):
            parts = max(1, int(np.ceil(np.abs(end - start).max() / LARGEST_STEP)))
            for part in range(1, parts + 1):
                self._place(start + (end - start) * part / parts)
                if not pin.computeCollisions(self._shapes, self._results, False) and (allowed >= -TOLERANCE).all():
                    continue
                distances = self._distances_here()
                touching = np.flatnonzero((distances < allowed) & (distances < 0.0))
                if touching.size:
                    first, second = self._names(int(touching[np.argmin(distances[touching])]))
                    return [Violation(Reason.SELF_COLLISION, f"step {step}: '{first}' would touch '{second}'")]
                # What has come apart, or less deep, stays so.
                allowed = np.maximum(allowed, np.minimum(distances, 0.0) - TOLERANCE)
        return []

    def _place(self, positions: np.ndarray) -> None:
        q = pin.neutral(self._model)
        q[self._columns] = positions
        for column, source, factor, shift in self._follows:
            q[column] = factor * q[source] + shift
        pin.updateGeometryPlacements(self._model, self._data, self._shapes, self._results, q)

    def _distances(self, positions: np.ndarray) -> np.ndarray:
        self._place(positions)
        return self._distances_here()

    def _distances_here(self) -> np.ndarray:
        """Distances of all pairs [m], negative where they are inside each other."""
        pin.computeDistances(self._shapes, self._results)
        return np.array([result.min_distance for result in self._results.distanceResults])

    def _leave_out_neighbours(self) -> None:
        for pair in list(self._shapes.collisionPairs):
            a, b = (self._shapes.geometryObjects[i].parentJoint for i in (pair.first, pair.second))
            if a == b or self._model.parents[a] == b or self._model.parents[b] == a:
                self._shapes.removeCollisionPair(pair)

    def _leave_out_touching(self, home: np.ndarray) -> None:
        self._results = pin.GeometryData(self._shapes)
        touching = self._distances(home) < TOLERANCE
        for pair, touches in zip(list(self._shapes.collisionPairs), touching, strict=True):
            if touches:
                self._shapes.removeCollisionPair(pair)

    def _names(self, pair: int) -> tuple[str, str]:
        places = self._shapes.collisionPairs[pair]
        objects = (self._shapes.geometryObjects[i] for i in (places.first, places.second))
        first, second = (self._model.frames[o.parentFrame].name for o in objects)
        return first, second


def _as_moved(urdf: str) -> tuple[list[tuple[str, str, float, float]], str]:
    """Prepare a URDF for pinocchio: one position per joint, all limits present, mimic joints as joints of their own.

    Returns:
        (name, source, factor, offset) of the mimic joints, and the text.
    """
    robot = ElementTree.fromstring(urdf)
    mimics = []
    for joint in robot.findall("joint"):
        if joint.get("type") not in JOINT_TYPES:
            continue
        limit = joint.find("limit")
        limit = ElementTree.SubElement(joint, "limit") if limit is None else limit
        if joint.get("type") == "continuous":
            joint.set("type", "revolute")
            limit.attrib.update(lower="-1e9", upper="1e9")
        limit.attrib.update({key: limit.get(key, "0") for key in ("velocity", "effort")})
        mimic = joint.find("mimic")
        if mimic is not None:
            factor, offset = float(mimic.get("multiplier", 1.0)), float(mimic.get("offset", 0.0))
            mimics.append((joint.get("name"), mimic.get("joint"), factor, offset))
            joint.remove(mimic)
    return mimics, ElementTree.tostring(robot, encoding="unicode")
