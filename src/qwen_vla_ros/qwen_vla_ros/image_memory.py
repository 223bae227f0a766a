"""Processes that handle no images do without the shared memory that images need."""

from __future__ import annotations

import os
from pathlib import Path

PROFILE, WITHOUT_IMAGES = "fastdds_large_images.xml", "fastdds_without_images.xml"
VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def release_image_memory() -> None:
    """Take the suite's Fast DDS profile without images in this process; call before rclpy.init.

    The other one gives every process a 32 MB segment, which would count against the robot's own computer. The default
    transports talk to processes with it. A profile of the user's own is left alone.
    """
    for name in VARIABLES:
        path = Path(os.environ.get(name, ""))
        if path.name == PROFILE:
            os.environ[name] = str(path.with_name(WITHOUT_IMAGES))
