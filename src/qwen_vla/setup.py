"""Build and install the qwen_vla package (the model, its data, training and evaluation, and the qwen-vla command)."""

from setuptools import find_packages, setup

PACKAGE = "qwen_vla"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=[
        "setuptools",
        "accelerate",
        "av",
        "diffusers",
        "embodiment_descriptions",
        "gymnasium",
        "huggingface_hub",
        "lz4",
        "matplotlib",
        "mcap",
        "msgpack",
        "numpy",
        "opencv-python-headless",
        "peft",
        "pillow",
        "psutil",
        "pyarrow",
        "pydantic>=2",
        "PyYAML",
        "pyzmq",
        "qwen_vla_control",
        "rich",
        "rosbags",
        "safetensors",
        "scipy",
        "tensorboard",
        "tokenizers",
        "torch",
        "tqdm",
        "transformers>=5.2",
        "tyro",
        "websockets>=14",
        "zstandard",
    ],
    python_requires=">=3.11",
    extras_require={
        "cuda": ["flash-linear-attention>=0.6,<0.7"],  # Triton kernels; without them it works, slower
        "finetune": ["bitsandbytes>=0.49"],  # 8-bit states of the optimizer, 4-bit frozen weights
    },
    zip_safe=True,
    author="Qwen-VLA ROS developers",
    author_email="maintainers@qwen-vla-ros.org",
    maintainer="Qwen-VLA ROS developers",
    maintainer_email="maintainers@qwen-vla-ros.org",
    description="Qwen-VLA model library: backbone, action expert, processor, data, training and evaluation.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": ["qwen-vla = qwen_vla.cli:main"],
        "qwen_vla.episode_sources": [
            "lerobot = qwen_vla.data.formats.lerobot:LeRobotEpisodes",
            "rosbag = qwen_vla.data.formats.rosbag:RosbagEpisodes",
        ],
        "qwen_vla.policies": [
            "qwen_vla = qwen_vla.policies.checkpoint:open_checkpoint",
            "mock = qwen_vla.policies.mock:MockPolicy",
            "openpi = qwen_vla.policies.servers.openpi:open_openpi",
            "groot = qwen_vla.policies.servers.groot:open_groot",
        ],
    },
)
