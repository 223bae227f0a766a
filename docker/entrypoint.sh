#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the container's command as a ROS process: the distribution and the workspace are sourced, signals reach it.
set -eo pipefail
. "/opt/ros/${ROS_DISTRO}/setup.bash"
. /workspace/install/setup.bash
exec "$@"
