# SPDX-License-Identifier: Apache-2.0
"""Simulated robots that offer the same topics as the real stack, scripted experts and task suites."""

import ctypes
import os
import sys


def _offscreen_backend() -> str:
    """MuJoCo's name for an off-screen OpenGL available on this machine: EGL, with or without a GPU, else OSMesa."""
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return "osmesa"
    return "egl"


# MuJoCo selects its OpenGL on import; its default needs a display.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", _offscreen_backend())
