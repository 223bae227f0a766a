# SPDX-License-Identifier: Apache-2.0
"""LeRobot runs our model by its plugin, and our gate gets a policy of LeRobot's: LeRobot as installed from PyPI."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from foreign_environment import foreign_python, run
from serve_process import serving, serving_by
from serving_peers import PROMPT

from embodiment_descriptions import load_robot
from qwen_vla.policies import Observation, PolicyOptions, open_policy

PLUGIN = Path(__file__).resolve().parents[4] / "integrations" / "lerobot_policy_qwen_vla"
SERVER = PLUGIN.with_name("serve_lerobot.py")
PEER, ACT = (Path(__file__).with_name(f"lerobot_{name}_peer.py") for name in ("policy", "act"))


@pytest.fixture(scope="module")
def python() -> Path:
    python = foreign_python("lerobot==0.6.1", "msgpack", "websockets", minimum=(3, 12))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", PLUGIN], check=True)
    return python


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[dict, Path]:
    random = np.random.default_rng(0)
    shown = {tag: random.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8) for tag in ("ego", "cam_wrist")}
    file = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(file, **shown)
    return shown, file


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_lerobot_gets_the_actions_of_the_policy(python, images, fitting_checkpoint, tmp_path) -> None:
    shown, file = images
    arguments = ("--checkpoint", str(fitting_checkpoint), "--robot", "widowx", "--threads", "1", "--port", "0")
    with serving(*arguments) as server:
        run(python, PEER, server.ports["openpi"], file, tmp_path / "out.npz", seconds=300)
    policy = open_policy(str(fitting_checkpoint), load_robot("widowx"), PolicyOptions(threads=1))
    seen = [Observation({tag: each[index] for tag, each in shown.items()}, PROMPT) for index in range(2)]
    with np.load(tmp_path / "out.npz") as out:
        chunks, steps, about = out["chunks"], out["steps"], json.loads(str(out["about"]))
    for index, chunk in enumerate(chunks):
        np.testing.assert_array_equal(chunk, policy.infer(seen[index], seed=4 + index).data)
    first, second = (policy.infer(seen[0], seed=seed).data for seed in (4, 5))
    np.testing.assert_array_equal(steps, [*first[:8], second[0]])
    assert "action: it has 7 numbers, there are 6" in about["narrow"]
    assert "it needs observation.images.front, there is" in about["camera"]
    assert "qwen-vla train" in about["training"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_policy_of_lerobot_answers_behind_our_interface(python, images, tmp_path) -> None:
    shown, file = images
    robot = load_robot("widowx")
    run(python, ACT, tmp_path / "act", file, tmp_path / "out.npz", seconds=300)
    needs = {
        "cameras": {"ego": "images.ego", "cam_wrist": "images.cam_wrist"},
        "state": {"state": list(robot.joint_names)},
        "control_mode": "eef_delta",
        "channels": list(map(str, robot.channel_names)),
        "period": robot.period,
        "horizon": 16,
    }
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(needs))
    seen = Observation({tag: each[0] for tag, each in shown.items()}, PROMPT, state=np.linspace(0, 0.3, 7))
    with serving_by(python, SERVER, tmp_path / "act", "--port", "0") as server:
        policy = open_policy(f"openpi://127.0.0.1:{server.ports['openpi']},{tmp_path / 'server.yaml'}", robot)
        chunk = policy.infer(seen)
        with pytest.raises(ValueError, match=r"images\.cam_wrist: must be H×W×3 uint8"):
            policy._connection.ask({"images": {"ego": shown["ego"][0]}}, 10)
        policy.close()
    assert policy.policy_name == f"act {tmp_path / 'act'}"
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(chunk.data, out["chunk"], atol=1e-5)
