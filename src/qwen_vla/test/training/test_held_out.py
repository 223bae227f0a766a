# SPDX-License-Identifier: Apache-2.0
"""Metrics on held-out samples: zero for the truth, and the size of an injected error."""

import numpy as np
import pytest
import torch

from embodiment_descriptions import load_robot
from qwen_vla.data.robot.robot_source import embodiment_info
from qwen_vla.model.sample import POINTS, TIPS, Sample
from qwen_vla.training.batching.batch import Batch
from qwen_vla.training.grounding import GroundingTargets
from qwen_vla.training.held_out import _grounding_errors, _physical_errors


def errors(name, change):
    """Measures of a chunk of the robot that `change` has moved away from the truth, halfway through."""
    robot = embodiment_info(load_robot(name))
    truth = np.random.default_rng(0).normal(scale=0.1, size=(5, robot.horizon, len(robot.channel_names)))
    sampled = truth.copy()
    change(sampled, robot.channel_names)
    return _physical_errors(robot, sampled, truth, np.full(5, robot.horizon // 2 - 1))


@pytest.mark.parametrize("name", ["widowx", "aloha", "mobile_base"])
def test_the_truth_has_no_error(name):
    found = errors(name, lambda chunks, names: None)
    assert found and not any(found.values())


def test_a_tip_beside_its_place_is_measured_in_millimeters():
    def aside(chunks, names):
        chunks[:, 7, :3] += [0.003, 0.0, 0.004]
        chunks[:, :, names.index("gripper")] += 0.1

    found = errors("widowx", aside)
    assert found == pytest.approx({"position_mm": 5.0, "position_mm_median": 5.0, "gripper": 0.1})


def test_joints_of_both_arms_are_measured_without_their_grippers():
    def off(chunks, names):
        chunks[..., [k for k, name in enumerate(names) if "gripper" not in name]] += 0.02
        chunks[..., names.index("right_gripper")] += 0.5

    assert errors("aloha", off) == pytest.approx({"joint_mrad": 20.0, "gripper": 0.25})


def test_waypoints_are_measured_where_they_lead():
    def straight_on(chunks, names):
        chunks[:, 3, 0] += 0.05  # the last step before the middle

    found = errors("mobile_base", straight_on)
    assert found == pytest.approx({"position_mm": 50.0, "position_mm_median": 50.0, "heading_mrad": 0.0}, abs=1e-9)

    def turned(chunks, names):
        chunks[:, 3, 2] -= 0.1

    assert errors("mobile_base", turned)["heading_mrad"] == pytest.approx(100.0)


def test_points_are_measured_where_they_are_visible_and_judged_where_it_is_known():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4, len(POINTS), 3, generator=generator)
    visible = torch.zeros(4, len(POINTS), dtype=torch.bool)
    visible[:2, [0, 2]] = True
    hidden = ~visible
    hidden[:, 1] = False
    openings = torch.tensor([[0.5, -1.0]]).expand(4, TIPS)
    found = torch.cat([points, torch.full((4, len(POINTS), 1), 0.7), visible[..., None].float()], dim=-1)
    found[:2, 0, 0] += 0.1
    found[3, 0, 4] = 0.9  # said to be in view, and is not
    targets = GroundingTargets(torch.arange(4), points, visible, hidden, openings)
    result = _grounding_errors({"points": found}, Batch({}, grounding=targets))
    assert result == pytest.approx(
        {"object": 0.1, "tip": 0, "object_median": 0.1, "object_depth_m": 0, "opening": 0.2, "in_view": 11 / 12},
        abs=1e-6,
    )


def test_an_answer_is_right_when_all_its_words_are(micro):
    model, processor = micro
    batch = processor.collate(
        [Sample("what?", answer="red cube"), Sample("do nothing"), Sample("which color is it?", answer="blue")]
    )
    with torch.no_grad():
        encoding = model.encode(**batch)
        likeliest = model.vlm.lm_head(encoding.hidden).argmax(dim=-1)
    labels = batch["labels"]
    said = labels.clone()
    said[:, 1:] = torch.where(labels[:, 1:] >= 0, likeliest[:, :-1], labels[:, 1:])
    assert model.answered(encoding, said).tolist() == [True, True], "of the rows with an answer"
    last = int((said[2] >= 0).nonzero()[-1])
    said[2, last] = (said[2, last] + 1) % 300
    assert model.answered(encoding, said).tolist() == [True, False]
