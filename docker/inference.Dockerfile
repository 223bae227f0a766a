# SPDX-License-Identifier: Apache-2.0
# What runs on the machine with the GPU: policy_node and the model library. No drivers, no controllers.
#
#   docker build -f docker/inference.Dockerfile -t qwen_vla_inference .        (from the root of the repository)
#   ... --build-arg ROS_DISTRO=kilted       or lyrical, with --build-arg UBUNTU=resolute
#   docker run --gpus all --network host qwen_vla_inference
#
# CUDA comes with the wheels of PyTorch; the host needs the NVIDIA driver and the NVIDIA Container Toolkit.
ARG ROS_DISTRO=jazzy
ARG UBUNTU=noble
FROM ros:${ROS_DISTRO}-ros-core-${UBUNTU}
ARG ROS_DISTRO
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# No versions: the ROS repository keeps only the latest of each package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential \
        cmake \
        python3-colcon-common-extensions \
        python3-pip \
        "ros-${ROS_DISTRO}-diagnostic-msgs" \
        "ros-${ROS_DISTRO}-rmw-zenoh-cpp" \
        "ros-${ROS_DISTRO}-trajectory-msgs" \
        "ros-${ROS_DISTRO}-visualization-msgs" \
    && rm -rf /var/lib/apt/lists/*

# Versions are those of the lock file. The image holds nothing else, so its Python may be written to.
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --break-system-packages --ignore-installed --constraint /tmp/requirements.lock \
        accelerate av diffusers huggingface_hub mcap numpy opencv-python-headless peft pillow pin psutil \
        pyarrow pydantic pyyaml rich rosbags rosbags-image safetensors scipy tokenizers torch tqdm \
        transformers tyro xacro \
    && rm /tmp/requirements.lock

WORKDIR /workspace
COPY checkpoints checkpoints
COPY launch launch
COPY config config
COPY src src
RUN . "/opt/ros/${ROS_DISTRO}/setup.bash" \
    && colcon build --merge-install --packages-up-to qwen_vla_ros \
    && rm -rf build log

RUN useradd --create-home --groups video policy
USER policy
COPY docker/entrypoint.sh /entrypoint.sh
ENV PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "launch", "qwen_vla_ros", "policy.launch.py", "device:=cuda"]
