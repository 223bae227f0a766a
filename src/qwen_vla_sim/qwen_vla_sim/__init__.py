"""Simulated robots that offer the same topics as the real stack, scripted experts and task suites."""

import ctypes
import os
import sys


def _offscreen_backend() -> str:
    """MuJoCo's name for an off-screen OpenGL that this machine has: EGL, with or without a GPU, else OSMesa."""
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return "osmesa"
    return "egl"


# MuJoCo chooses its OpenGL when it is imported, and by default one that needs a screen.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", _offscreen_backend())
