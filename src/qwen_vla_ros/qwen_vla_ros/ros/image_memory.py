# SPDX-License-Identifier: Apache-2.0
"""Processes without images do not need the shared memory for images."""

from __future__ import annotations

import os
from pathlib import Path

from qwen_vla_ros.ros.distributions import PROFILE_VARIABLES

PROFILE, WITHOUT_IMAGES = "fastdds_large_images.xml", "fastdds_without_images.xml"


def release_image_memory() -> None:
    """Use the suite's Fast DDS profile without images in this process; call before rclpy.init.

    The default profile allocates a 32 MB segment per process on the robot's own computer. The default transports still
    communicate with processes that use it. A user's own profile is kept.
    """
    for name in PROFILE_VARIABLES:
        path = Path(os.environ.get(name, ""))
        if path.name == PROFILE:
            os.environ[name] = str(path.with_name(WITHOUT_IMAGES))
