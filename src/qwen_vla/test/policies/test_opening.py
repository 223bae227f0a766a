# SPDX-License-Identifier: Apache-2.0
"""A policy is found by its reference and must fit the actual robot; differences are named."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from types import SimpleNamespace

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla.policies import (
    ActionChunk,
    ChunkPolicy,
    ContinuingPolicy,
    History,
    PolicyOptions,
    PreparedPolicy,
    open_policy,
    warm_up,
)
from qwen_vla.policies import opening as module
from qwen_vla.policies.checkpoint import checkpoint_of, checkpoint_path
from qwen_vla.policies.fit import missing_inputs, training_misfits
from qwen_vla.policies.opening import find_policy, split_reference


@pytest.fixture(scope="module")
def widowx():
    return load_robot("widowx")


def test_importing_the_policies_loads_no_torch():
    program = "import sys, qwen_vla.policies, qwen_vla.policies.mock, qwen_vla.policies.checkpoint as c; "
    program += "c.checkpoint_of('tiny'); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# References -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("tiny", ("qwen_vla", "tiny")),
        ("out/train/mine/model", ("qwen_vla", "out/train/mine/model")),
        ("qwen_vla://tiny", ("qwen_vla", "tiny")),
        ("mock://hold", ("mock", "hold")),
        ("openpi://host:8000", ("openpi", "host:8000")),
        ("my-policy.v2:///a/b://c", ("my-policy.v2", "/a/b://c")),
    ],
)
def test_a_reference_is_a_name_and_an_address_or_a_checkpoint(reference, parts):
    assert split_reference(reference) == parts


def test_a_checkpoint_is_a_folder_or_one_of_the_suite(tmp_path):
    assert checkpoint_path(str(tmp_path)) == checkpoint_of(f"qwen_vla://{tmp_path}") == tmp_path
    assert checkpoint_path("tiny").name == "tiny" and (checkpoint_path("tiny") / "config.json").is_file()
    assert checkpoint_of("mock://hold") is None


@pytest.mark.parametrize("name", ["no-such-policy", "/no/such/folder", "~/no/such/folder"])
def test_an_unknown_checkpoint_is_an_error_that_names_it(name):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint directory at {name}"):
        checkpoint_path(name)
    with pytest.raises(FileNotFoundError, match="included are libero, metaworld, simpler_widowx, tiny"):
        checkpoint_path("no-such-policy")


def test_an_unknown_policy_is_refused_and_the_known_ones_are_named(widowx):
    with pytest.raises(
        ValueError, match="the policy 'chess://knight'; installed: groot://, mock://, openpi://, qwen_vla://"
    ):
        open_policy("chess://knight", widowx)


# Entry points ---------------------------------------------------------------------------------------------------------


class Package(Distribution):
    """An installed package of which only the name is known."""

    def __init__(self, name):
        self._name = name

    metadata = property(lambda self: {"Name": self._name})

    def read_text(self, filename):
        return None

    def locate_file(self, path):
        raise NotImplementedError


@pytest.fixture
def installed(monkeypatch):
    """Install entry points: (package, name, where)."""

    def install(*entries):
        made = [EntryPoint(name, where, module.GROUP)._for(Package(package)) for package, name, where in entries]
        monkeypatch.setattr(module, "entry_points", lambda group: EntryPoints(made).select(group=group))

    return install


def test_a_name_that_two_packages_provide_is_refused(installed):
    installed(("blue", "go", "blue:Go"), ("red", "go", "red:Go"))
    with pytest.raises(ValueError, match=r"more than one package provides go:// \(blue, red\); uninstall all but one"):
        find_policy("go://9x9")


@pytest.mark.parametrize("where", ["no_such_module:Go", "qwen_vla.policies.mock:Go"])
def test_a_package_that_cannot_be_imported_is_named(installed, widowx, where):
    installed(("blue", "go", where))
    with pytest.raises(ValueError, match="go:// of package blue cannot be imported: .*(no_such_module|Go)"):
        open_policy("go://", widowx)


class Reading:
    """A policy that fits the given robots and never infers."""

    history = History()

    def __init__(self, address, embodiment, options):
        self.camera_tags, self.state_names = ("ego", *filter(None, [address])), ("waist",)
        self.options = options

    def misfits(self, embodiment):
        return [] if embodiment.name == "widowx" else ["gripper: none"]

    def infer(self, observation, seed=None):
        raise NotImplementedError


class Halfway:
    camera_tags = state_names = ()

    def __init__(self, *_):
        pass


@pytest.mark.parametrize(("where", "lacking"), [("Halfway", "its Halfway lacks history, misfits, infer")])
def test_what_is_not_a_policy_is_refused_by_what_it_lacks(installed, widowx, where, lacking):
    installed(("blue", "go", f"{__name__}:{where}"))
    with pytest.raises(ValueError, match=f"go:// is not a policy: {lacking}"):
        open_policy("go://", widowx)


def test_a_policy_gets_its_address_and_its_options(installed, widowx):
    installed(("blue", "go", f"{__name__}:Reading"))
    options = PolicyOptions(device="cuda:1")
    policy = open_policy("go://cam_wrist", widowx, options)
    assert policy.camera_tags == ("ego", "cam_wrist") and policy.options is options
    assert open_policy("go://", widowx).options == PolicyOptions()
    assert isinstance(policy, ChunkPolicy) and not isinstance(policy, ContinuingPolicy)


def test_everything_that_does_not_fit_is_said_at_once(installed):
    installed(("blue", "go", f"{__name__}:Reading"))
    with pytest.raises(ValueError) as refused:
        open_policy("go://cam_roof", load_robot("mobile_base"))
    assert str(refused.value) == (
        "the policy go://cam_roof does not fit 'mobile_base': gripper: none; "
        "cameras: the policy needs cam_roof, the robot has ego; joints: the policy needs waist, the robot has none"
    )


# Fit of a checkpoint --------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(widowx):
    return SimpleNamespace(control_mode="eef_delta", channel_names=widowx.channel_names, period=0.2, horizon=16)


def test_what_was_trained_for_this_robot_fits(widowx, trained):
    assert training_misfits(trained, widowx) == [] == list(missing_inputs(("ego", "cam_wrist"), ("waist",), widowx))


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("control_mode", "joint_position", "control mode: trained with joint_position, the robot has eef_delta"),
        ("channel_names", ("x", "y"), "channels: trained with x y, the robot has x y z rx ry rz gripper"),
        ("period", 0.02, "period [s]: trained with 0.02, the robot has 0.2"),
        ("horizon", 8, "chunk size: trained with 8, the robot has 16"),
    ],
)
def test_whatever_differs_is_named(widowx, trained, name, value, phrase):
    setattr(trained, name, value)
    assert training_misfits(trained, widowx) == [phrase]


def test_a_checkpoint_is_opened_for_a_robot_and_reads_its_prompt(fitting_checkpoint, widowx):
    policy = open_policy(str(fitting_checkpoint), widowx, PolicyOptions(euler_steps=2))
    assert policy.prompt("lift it") == widowx.prompt("lift it") and policy.euler_steps == 2
    assert policy.history == History(1, policy.model.config.history_rate) and isinstance(policy, ContinuingPolicy)
    own = open_policy(str(fitting_checkpoint), widowx)
    assert own.euler_steps == own.model.config.euler_steps
    other = open_policy(str(fitting_checkpoint), widowx, PolicyOptions(prompt_template="Do {instruction}!"))
    assert other.prompt("lift it") == "Do lift it!"


def test_a_checkpoint_of_other_chunks_is_refused(checkpoint, widowx):
    with pytest.raises(ValueError, match="chunk size: trained with 4, the robot has 16"):
        open_policy(str(checkpoint), widowx)


def test_what_does_not_fit_is_refused_before_torch_is_loaded(checkpoint):
    """policy_node tries again every second until its robot is another one."""
    program = """
import sys
from embodiment_descriptions import load_robot
from qwen_vla.policies import open_policy
for robot, text in (("aloha", "was not trained for aloha; it knows widowx"), ("widowx", "chunk size: trained with 4")):
    try:
        open_policy(sys.argv[1], load_robot(robot))
    except ValueError as error:
        assert text in str(error), error
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, str(checkpoint)], check=True)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, widowx):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} is not a checkpoint: it has no config.json"):
        open_policy(str(tmp_path), widowx)


# Before the first goal ------------------------------------------------------------------------------------------------


def test_a_policy_that_can_prepare_itself_does(fitting_checkpoint, widowx):
    policy, told = open_policy(str(fitting_checkpoint), widowx), []
    assert isinstance(policy, PreparedPolicy)
    assert warm_up(policy, continues=True, progress=lambda *step: told.append(step)) > 0
    assert [(done, total) for done, total, _ in told] == [(done, len(told)) for done in range(len(told))] and told
    assert all("tokens, 2 images" in what for _, _, what in told)


def test_any_other_policy_sees_black_images_once(widowx):
    policy, seen = Reading("cam_wrist", widowx, None), []
    policy.infer = lambda observation, seed=None: seen.append(observation)
    assert not isinstance(policy, PreparedPolicy) and warm_up(policy) >= 0
    (only,) = seen
    assert {tag: image.any() for tag, image in only.images.items()} == {"ego": False, "cam_wrist": False}
    assert only.state.tolist() == [0.0]


# Chunks ---------------------------------------------------------------------------------------------------------------

CHUNK = {
    "data": np.zeros((4, 3), np.float32),
    "channel_names": ["dx", "dy", "dtheta"],
    "period": 0.5,
    "control_mode": "base_waypoints",
    "embodiment": "mobile_base",
    "instruction": "go",
    "stamp_ns": 1,
    "inference_ms": {"total": 1.0},
    "execution_horizon": 2,
}


def test_a_chunk_whose_parts_fit_is_made():
    assert ActionChunk(**CHUNK).channel_names == ("dx", "dy", "dtheta")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": np.zeros((4, 2))}, r"must be \[horizon, 3 channels\], got shape \(4, 2\)"),
        ({"data": np.zeros(3)}, r"got shape \(3,\)"),
        ({"data": np.zeros((0, 3))}, r"got shape \(0, 3\)"),
        ({"execution_horizon": 0}, "execution_horizon 0 is not in 1..4"),
        ({"execution_horizon": 5}, "execution_horizon 5 is not in 1..4"),
        ({"inference_ms": {"backbone": 1.0}}, "lacks 'total'"),
        ({"control_mode": "swim"}, "swim"),
    ],
)
def test_a_chunk_that_contradicts_itself_is_an_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        ActionChunk(**CHUNK | wrong)
