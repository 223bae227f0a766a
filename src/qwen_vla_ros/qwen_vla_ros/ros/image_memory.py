"""Processes that handle no images do without the shared memory that images need."""

from __future__ import annotations

import os

PROFILE = "fastdds_large_images.xml"
VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def release_image_memory() -> None:
    """Leave out the suite's Fast DDS profile in this process; call before rclpy.init.

    It gives every process a 32 MB segment, which would count against the robot's own computer. The default transports
    talk to processes with the profile. A profile of the user's own is left alone.
    """
    for name in VARIABLES:
        if os.path.basename(os.environ.get(name, "")) == PROFILE:
            del os.environ[name]
