"""A policy must fit the robot in front of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwen_vla_ros.policy.loaded_policy import checkpoint_path, require_fit, state_joints


@pytest.fixture
def trained(widowx):
    return SimpleNamespace(
        control_mode="eef_delta",
        channel_names=widowx.channel_names,
        period=0.2,
        horizon=16,
        camera_tags=("ego", "cam_wrist"),
    )


def test_what_was_trained_for_this_robot_fits(widowx, trained):
    require_fit(trained, widowx, Path("checkpoint"))


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("control_mode", "joint_position", "control mode"),
        ("channel_names", ("x", "y"), "channels"),
        ("period", 0.02, "period"),
        ("horizon", 8, "chunk size"),
        ("camera_tags", ("ego", "cam_top"), "cam_top"),
    ],
)
def test_whatever_differs_is_named(widowx, trained, name, value, word):
    setattr(trained, name, value)
    with pytest.raises(ValueError, match=word):
        require_fit(trained, widowx, Path("checkpoint"))


def test_an_unknown_checkpoint_is_an_error_that_names_it():
    with pytest.raises(FileNotFoundError, match="no-such-policy"):
        checkpoint_path("no-such-policy")
    with pytest.raises(FileNotFoundError, match="/no/such/folder"):
        checkpoint_path("/no/such/folder")


@pytest.mark.parametrize("module", ["executor.executor_node", "drawing.trajectory_visualizer", "policy.policy_node"])
def test_no_node_imports_torch_by_being_imported(module):
    program = f"import sys, qwen_vla_ros.{module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def reading(*names):
    return SimpleNamespace(state_names=names)


def test_the_state_is_read_in_the_order_that_it_was_trained_in(widowx):
    turned = widowx.joint_names[::-1]
    assert state_joints(reading(*turned), widowx) == turned
    assert state_joints(reading(), widowx) == ()


def test_a_state_that_the_joints_do_not_give_is_refused(widowx):
    with pytest.raises(ValueError, match="a state of 2 numbers"):
        state_joints(reading("waist", "tail"), widowx)
