from setuptools import find_packages, setup

package_name = "qwen_vla"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test", "test.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + package_name]),
        ("share/" + package_name, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"cuda": ["flash-linear-attention>=0.6,<0.7"]},  # Triton kernels; without them it works, slower
    zip_safe=True,
    author="Qwen-VLA ROS developers",
    author_email="maintainers@qwen-vla-ros.org",
    maintainer="Qwen-VLA ROS developers",
    maintainer_email="maintainers@qwen-vla-ros.org",
    description="Qwen-VLA model library: backbone, action expert, processor, data, training and evaluation.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["qwen-vla = qwen_vla.cli:main"]},
)
