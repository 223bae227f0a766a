# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of descriptions: expansions of every kind, and the same robot in MuJoCo."""

import functools
import os
import shutil
import subprocess
import sysconfig
import tempfile
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from embodiment_descriptions import Embodiment, embodiment_file, known_robots, robot_description

HARDWARE = ("mock", "gazebo", "isaac", "real")
CONTROLLERS_FILES = ("", "some/controllers.yaml")
COMBINATIONS = tuple(product(known_robots(), HARDWARE, CONTROLLERS_FILES))


@functools.cache
def text(name: str, hardware: str = "mock", controllers_file: str = "") -> str:
    """Expanded URDF; each kind is expanded once."""
    return robot_description(name, hardware=hardware, controllers_file=controllers_file)


@functools.cache
def robot(name: str, hardware: str = "mock") -> Embodiment:
    """The robot as it ships."""
    return Embodiment.from_urdf(text(name, hardware), embodiment_file(name, hardware))


def parsed(name: str, hardware: str = "mock", controllers_file: str = "") -> ElementTree.Element:
    """Root element of the expanded URDF."""
    return ElementTree.fromstring(text(name, hardware, controllers_file))


def simulated(name: str) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The robot in MuJoCo, with every link as a body of its own."""
    spec = mujoco.MjSpec.from_string(text(name))
    spec.compiler.fusestatic = False
    model = spec.compile()
    return model, mujoco.MjData(model)


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> set[tuple[str, ...]]:
    """Pairs of links that touch now; neighbors in the tree do not count."""
    mujoco.mj_forward(model, data)
    pairs = [[model.body(model.geom_bodyid[geom]).name for geom in (c.geom1, c.geom2)] for c in data.contact]
    return {tuple(sorted(pair)) for pair in pairs}


def check_urdf(urdf: str) -> str | None:
    """Run the check_urdf program of the system, else the one that comes with pinocchio's wheels.

    Returns:
        What it says about a URDF that it accepts; None where there is no such program.

    Raises:
        AssertionError: it does not accept the URDF.
    """
    program, environment = shutil.which("check_urdf"), dict(os.environ)
    if program is None:
        bundle = Path(sysconfig.get_path("purelib")) / "cmeel.prefix"
        program, environment["LD_LIBRARY_PATH"] = str(bundle / "bin" / "check_urdf"), str(bundle / "lib")
        if not Path(program).exists():
            return None
    with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
        file.write(urdf)
        file.flush()
        done = subprocess.run([program, file.name], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error" not in (done.stdout + done.stderr).lower()
    return done.stdout
