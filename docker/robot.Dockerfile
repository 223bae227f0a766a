# SPDX-License-Identifier: Apache-2.0
# What runs on the robot's own computer: executor, visualizer, recorder, controllers. No torch, no model.
#
#   docker build -f docker/robot.Dockerfile -t qwen_vla_robot .        (from the root of the repository)
#   ... --build-arg ROS_DISTRO=kilted       or lyrical, with --build-arg UBUNTU=resolute
#
# The driver of the robot is its vendor's: build your own image on this one, or run the driver beside the container.
ARG ROS_DISTRO=jazzy
ARG UBUNTU=noble
FROM ros:${ROS_DISTRO}-ros-base-${UBUNTU}
ARG ROS_DISTRO
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# No versions: the ROS repository keeps only the latest of each package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        python3-colcon-common-extensions \
        python3-pip \
        "ros-${ROS_DISTRO}-controller-manager" \
        "ros-${ROS_DISTRO}-diagnostic-msgs" \
        "ros-${ROS_DISTRO}-diff-drive-controller" \
        "ros-${ROS_DISTRO}-forward-command-controller" \
        "ros-${ROS_DISTRO}-joint-state-broadcaster" \
        "ros-${ROS_DISTRO}-joint-trajectory-controller" \
        "ros-${ROS_DISTRO}-parallel-gripper-controller" \
        "ros-${ROS_DISTRO}-nav2-msgs" \
        "ros-${ROS_DISTRO}-rmw-zenoh-cpp" \
        "ros-${ROS_DISTRO}-robot-state-publisher" \
        "ros-${ROS_DISTRO}-tf2-msgs" \
        "ros-${ROS_DISTRO}-visualization-msgs" \
        "ros-${ROS_DISTRO}-xacro" \
    && rm -rf /var/lib/apt/lists/*

# Versions are those of the lock file. The image holds nothing else, so its Python may be written to.
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --break-system-packages --ignore-installed --constraint /tmp/requirements.lock \
        coal mcap numpy opencv-python-headless pillow pin psutil pydantic pyyaml rich \
        rosbags rosbags-image scipy tqdm tyro xacro \
    && rm /tmp/requirements.lock

WORKDIR /workspace
COPY launch launch
COPY config config
COPY src src
# The nodes look for checkpoints beside launch/ and config/; here there are none.
# qwen_vla is the library without its model: reading of recordings and choice of images. It imports torch where it is
# used, which is nowhere on the robot.
RUN . "/opt/ros/${ROS_DISTRO}/setup.bash" \
    && colcon build --merge-install --packages-up-to qwen_vla_ros \
    && rm -rf build log

# Nobody's root: the robot's devices are for the group dialout.
RUN useradd --create-home --groups dialout,video robot
USER robot
COPY docker/entrypoint.sh /entrypoint.sh
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "launch", "qwen_vla_ros", "widowx.launch.py", "hardware:=real", "policy:=none"]
