# SPDX-License-Identifier: Apache-2.0
"""Meta-World in its own environment: what is recorded leads to success again when a policy predicts it."""

import numpy as np
import pytest

from benchmarks.public.metaworld.benchmark import METAWORLD
from benchmarks.public.metaworld.tasks import INSTRUCTIONS
from benchmarks.public.protocol.benchmark import FIRST_DEMONSTRATION, FIRST_EXPERT
from benchmarks.public.protocol.episode import run_episode
from benchmarks.public.protocol.trials import FIRST_INTERVENTION
from benchmarks.public.protocol.world_process import WorldProcess
from embodiment_descriptions import load_robot
from qwen_vla.policies import open_policy

pytestmark = pytest.mark.skipif(
    not METAWORLD.environment.is_ready, reason="make benchmark-metaworld makes the environment of Meta-World"
)
TASK, START = "reach", 0  # with START 0 a recorded chunk's number is that of the request


@pytest.fixture(scope="module")
def world():
    process = WorldProcess(METAWORLD.environment.python, METAWORLD.module)
    yield process
    process.close()


def chunks_of(rows, gap=0.1):
    """Chunks [N, 20, 4] that are executed by halves, as the expert's rows (T, 4) would be predicted."""
    rows = np.column_stack([rows[:, :3], rows[:, 3] / gap])
    ahead = np.arange(0, len(rows), 10)[:, None] + np.arange(20)
    return rows[np.minimum(ahead, len(rows) - 1)]


def test_a_policy_that_predicts_the_demonstration_succeeds_and_one_that_holds_does_not(world, tmp_path):
    robot, trial = load_robot(str(METAWORLD.robot)), METAWORLD.trials(METAWORLD.tasks, 1)
    trial = next(each for each in trial if each.task == TASK)
    shown = world.demonstrate(TASK, trial.start, None)
    chunks = chunks_of(shown["frames"]["action"])
    np.save(tmp_path / "chunks.npy", np.roll(chunks, trial.start * 1000 % len(chunks), axis=0))
    row = run_episode(world, open_policy(f"mock://{tmp_path / 'chunks.npy'}", robot), trial)
    assert row.success and row.seconds == pytest.approx(len(shown["frames"]["action"]) / robot.rate_hz, abs=0.2)
    held = run_episode(world, open_policy("mock://hold", robot), trial)
    assert not held.success and held.seconds == pytest.approx(500 * 0.0125) and held.failure


def test_start_states_of_the_three_purposes_differ_and_repeat(world):
    def hand_and_goal(start):
        return world.demonstrate("push", start, None)["frames"]["action"]

    first, again = hand_and_goal(FIRST_EXPERT), hand_and_goal(FIRST_EXPERT)
    np.testing.assert_array_equal(first, again)
    others = [hand_and_goal(start) for start in (0, 1, FIRST_DEMONSTRATION)]
    assert all(other.shape != first.shape or not np.allclose(other, first, atol=1e-3) for other in others)


def test_a_demonstration_has_small_images_of_what_the_protocol_shows(world):
    seen = world.start("push", FIRST_EXPERT)
    assert seen["images"]["ego"].shape == (480, 480, 3) and seen["instruction"] == INSTRUCTIONS["push"]
    start = next(FIRST_EXPERT + i for i in range(20) if np.random.default_rng(FIRST_EXPERT + i).random() >= 0.5)
    seen, small = world.start("push", start), world.demonstrate("push", start, [96, 96])
    whole = seen["images"]["ego"].reshape(96, 5, 96, 5, 3).mean((1, 3))
    assert np.abs(whole - small["frames"]["observation.images.ego"][0]).mean() < 3.0
    np.testing.assert_allclose(seen["state"], small["frames"]["observation.state"][0], atol=1e-6)


def test_the_expert_goes_on_from_where_a_policy_has_led(world):
    world.start(TASK, FIRST_INTERVENTION)
    step = world.execute(np.tile([0.2, 0.5, 0.3, 1.0], (60, 1)), False)
    assert step["free"] and step["elapsed"] == pytest.approx(60 * 4 / 500) and not step["over"]
    shown = world.take_over([96, 96])
    assert shown["success"] and shown["frames"]["observation.images.ego"].shape[1:] == (96, 96, 3)
    np.testing.assert_allclose(shown["frames"]["observation.state"][0], step["observation"]["state"], atol=1e-6)
