# SPDX-License-Identifier: Apache-2.0
"""Prepares the process for mani_skill: where its assets are, and the driver by which SAPIEN renders on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from pathlib import Path

DRIVER = Path(sys.prefix) / "mesa/lvp_icd.json"  # made by mesa.sh, where the system has no driver of its own
ASSETS = "MS_ASSET_DIR"  # mani_skill's own environment variable
NEEDED = ("robots/widowx/wx250s.urdf", "tasks/bridge_v2_real2sim_dataset/custom/info_bridge_custom_v0.json")


def prepare() -> None:
    """Must be called before mani_skill is imported.

    Raises:
        FileNotFoundError: the assets are missing; mani_skill would ask on a terminal whether to download them.
    """
    warnings.filterwarnings("ignore", message="Failed to find system libvulkan")  # SAPIEN brings its own
    warnings.filterwarnings("ignore", message="Creating a tensor from a list of numpy.ndarrays")
    os.environ["LP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # parallel simulators would wait for each other
    if DRIVER.is_file():
        ctypes.CDLL(
            str(DRIVER.with_name("libdrm.so.2")), ctypes.RTLD_GLOBAL
        )  # the driver needs it newer than Debian 12's
        os.environ.setdefault("VK_DRIVER_FILES", str(DRIVER))
        os.environ.setdefault("VK_ICD_FILENAMES", str(DRIVER))  # the older name
    if missing := missing_assets():
        raise FileNotFoundError(
            f"{missing[0]} does not exist: download the assets with `{sys.executable} -m "
            f"mani_skill.utils.download_asset bridge_v2_real2sim widowx250s`, or set {ASSETS} to the folder with them"
        )


def missing_assets() -> list[Path]:
    """Files of mani_skill's assets that the tasks need and this machine lacks."""
    folder = Path(os.environ.get(ASSETS) or "~/.maniskill").expanduser() / "data"
    return [folder / name for name in NEEDED if not (folder / name).is_file()]
