# SPDX-License-Identifier: Apache-2.0
"""Annotations of recorded frames: visible points, hidden points, and the labels for training."""

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla.data.formats.lerobot import DatasetError, LeRobotReader
from qwen_vla.data.robot.annotations import WITHIN, Annotations, gripper_openings, point_labels
from qwen_vla.model.sample import POINTS

NAMES = ("red cube", "towel")


def one_frame(objects=(0, 1, -1), points=None):
    """One camera, three objects and two tips."""
    points = np.full((1, 1, 5, 3), 0.5, np.float32) if points is None else points
    return Annotations(
        points, np.array([objects]), np.array([0]), np.array([1]), NAMES, ("ego",), ("left tip", "right tip")
    )


@pytest.mark.parametrize(
    ("point", "visible", "hidden"),
    [
        ((0.5, 0.5, 1.0), True, False),
        ((0.5, 0.5, 0.0), False, True),
        ((0.5, 0.5, -1.0), False, True),
        ((WITHIN / 2, 0.5, 1.0), False, False),
        ((0.5, 1 - WITHIN / 2, 1.0), False, False),
        ((WITHIN * 1.1, 1 - WITHIN * 1.1, 1.0), True, False),
        ((1.1, 0.5, 1.0), False, False),
        ((1.2, 0.5, 1.0), False, True),
        ((0.5, -0.2, 1.0), False, True),
    ],
)
def test_a_point_is_in_view_or_not_or_at_the_border_where_nothing_is_sure(point, visible, hidden):
    annotations = one_frame()
    annotations.points[0, 0, 1] = point
    assert (annotations.visible[0, 0, 1], annotations.hidden[0, 0, 1]) == (visible, hidden)


def test_what_a_scene_lacks_is_neither_visible_nor_hidden():
    annotations = one_frame()
    assert annotations.visible[0, 0].tolist() == [True, True, False, True, True]
    assert not annotations.hidden.any()


def test_the_labels_name_object_goal_and_tips():
    annotations = one_frame()
    annotations.points[0, 0, :, 0] = [0.1, 0.2, 0.3, 0.4, 0.5]
    annotations.points[0, 0, 1, 2] = -1
    found = point_labels(annotations, 0, [0], 0, 1, np.array([0.5, 1.0], np.float32))
    assert POINTS == ("object", "goal", "tip", "second tip")
    np.testing.assert_allclose(found.points[0, :, 0], [0.1, 0.2, 0.4, 0.5])
    assert found.visible.tolist() == [[True, False, True, True]]
    assert found.hidden.tolist() == [[False, True, False, False]]
    nothing = point_labels(annotations, 0, [0, 0], -1, -1, np.full(2, -1, np.float32))
    assert nothing.visible.tolist() == [[False, False, True, True]] * 2 and not nothing.hidden.any()


def test_openings_of_a_recording_are_those_of_its_gripper(recordings):
    reader = LeRobotReader(recordings / "demonstrations")
    robot = load_robot("widowx")
    found = gripper_openings(reader, robot)
    finger = reader.frames["observation.state"][:, -1]
    np.testing.assert_allclose(found[:, 0], [robot.gripper_from_joint(float(x)) for x in finger], atol=0.05)
    assert found[:, 0].min() >= 0 and found[:, 0].max() <= 1 and (found[:, 1] == -1).all()
    assert (gripper_openings(reader, load_robot("mobile_base")) == -1).all()


def test_a_recording_without_labels_says_what_it_lacks(recordings):
    reader = LeRobotReader(recordings / "snapshots")
    reader.info = {key: value for key, value in reader.info.items() if key != "names"}
    del reader.frames["annotation.goal"]
    with pytest.raises(DatasetError, match="no names in meta/info.json, no column annotation.goal: record it with"):
        Annotations.of(reader)


def test_more_points_than_the_recording_has_are_refused(recordings):
    reader = LeRobotReader(recordings / "snapshots")
    reader.info = reader.info | {"points": [*reader.info["points"], "second tip"]}
    with pytest.raises(DatasetError, match="has 24 numbers per frame; .* tips tip, second tip .* it needs 30"):
        Annotations.of(reader)
