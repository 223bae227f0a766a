# SPDX-License-Identifier: Apache-2.0
"""openpi's own client, as it is installed from PyPI, gets from `qwen-vla serve` what `Policy.infer` gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from foreign_environment import foreign_python, run
from serve_process import serving

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.policies import Observation, PolicyOptions, open_policy

PEER = Path(__file__).with_name("openpi_peer.py")
# openpi-client does not declare that it imports typing_extensions.
REQUIREMENTS = ("openpi-client==0.1.2", "typing_extensions")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "secret"])
def test_openpi_client_gets_the_actions_of_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    python = foreign_python(*REQUIREMENTS)
    monkeypatch.setenv("QWEN_VLA_API_KEY", key)
    random = np.random.default_rng(0)
    images = {tag: random.integers(0, 256, (224, 224, 3), dtype=np.uint8) for tag in ("ego", "cam_wrist")}
    np.savez(tmp_path / "in.npz", **images)
    checkpoint = str(resource_path("checkpoints/tiny"))
    with serving("--checkpoint", checkpoint, "--robot", "widowx", "--port", "0", "--threads", "1") as server:
        run(python, PEER, server.ports["openpi"], key, tmp_path / "in.npz", tmp_path / "out.npz")

    policy = open_policy(checkpoint, load_robot("widowx"), PolicyOptions(threads=1))
    wanted = policy.infer(Observation(images, "pick up the red cube"), seed=5).data
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["nested"], wanted)
        np.testing.assert_array_equal(out["flat"], wanted)
        about = json.loads(str(out["about"]))
    assert about["metadata"]["embodiment"] == "widowx" and about["metadata"]["cameras"] == ["ego", "cam_wrist"]
    assert set(about["timing"]) >= {"infer_ms", "prev_total_ms"}
    assert "images.ego: missing" in about["error"]
