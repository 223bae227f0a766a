# SPDX-License-Identifier: Apache-2.0
"""Where all links of a robot are, those behind grippers and mimic joints included (pinocchio)."""

from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin

from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.urdf import Mimic, give_one_position, parse_urdf


class LinkPoses:
    """Forward kinematics of a whole robot. Not thread-safe: pinocchio's work space is reused."""

    def __init__(self, urdf: str) -> None:
        """Build the model; EmbodimentError when the text is no URDF."""
        links = parse_urdf(urdf).links
        followers, xml = as_moved(urdf)
        try:
            self._model = pin.buildModelFromXML(xml)
        except (ValueError, RuntimeError) as error:
            raise EmbodimentError(f"pinocchio cannot build a model of the URDF: {error}") from error
        self._data = self._model.createData()
        self._frames = {link: self._model.getFrameId(link, pin.FrameType.BODY) for link in links}
        self._places = {
            name: self._model.joints[index].idx_q
            for index, name in enumerate(self._model.names)
            if index and self._model.joints[index].nq == 1
        }
        self._follows = [(self._places[name], self._places[to.joint], to) for name, to in followers.items()]

    def at(self, joints: Mapping[str, float]) -> dict[str, np.ndarray]:
        """(4, 4) poses of all links in the root link; joints that are not named stand at zero [rad | m]."""
        q = np.zeros(self._model.nq)
        for name in self._places.keys() & joints.keys():
            q[self._places[name]] = joints[name]
        for place, source, mimic in self._follows:  # whatever was said of them
            q[place] = mimic.factor * q[source] + mimic.offset
        pin.framesForwardKinematics(self._model, self._data, q)
        return {link: self._data.oMf[frame].homogeneous for link, frame in self._frames.items()}


def as_moved(urdf: str) -> tuple[dict[str, Mimic], str]:
    """Prepare a URDF for pinocchio: one position per joint, all limits present, mimic joints as joints of their own.

    Returns:
        What the mimic joints follow in the end, by their names; and the text.

    Raises:
        EmbodimentError: the text is no URDF.
    """
    tree, robot = parse_urdf(urdf), ElementTree.fromstring(urdf)
    for element in robot.findall("joint"):
        give_one_position(element)
        for mimic in element.findall("mimic"):
            element.remove(mimic)
    followers = {name: tree.followed(name) for name, joint in tree.joints.items() if joint.mimic is not None}
    return followers, ElementTree.tostring(robot, encoding="unicode")
