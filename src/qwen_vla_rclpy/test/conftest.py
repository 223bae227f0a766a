"""The middleware reads its profile once per process: whoever comes first sets it, for all tests that follow."""

import os

from qwen_vla_ros.environment import ros_environment

os.environ.update(ros_environment())
