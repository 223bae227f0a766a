# SPDX-License-Identifier: Apache-2.0
"""Evaluation: what it shows to the policy and how it judges, what it sums up, and seeds that prove nothing."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla import ActionChunk
from qwen_vla.evaluation.contact_sheet import strip
from qwen_vla.evaluation.episode import MAX_REFUSALS, Film, Look, run_episode, shown_to
from qwen_vla.evaluation.in_process import _Player, check, evaluate, refuse_trained_seeds
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.evaluation.partial_results import PartialResults, Played, part_of
from qwen_vla.evaluation.summary import EpisodeRow, read_summary, refusals_as_text, rows_of, summarize
from qwen_vla.evaluation.tables import as_markdown
from qwen_vla.evaluation.videos import frame_step, frames
from qwen_vla.evaluation.write import announce_test, print_summary, withstood, write_summary
from qwen_vla.seeds import FIRST_TEST_SEED, FIRST_TRAINING_SEED
from qwen_vla.suites import load_suite

OPTIONS = EvaluateOptions("widowx_pick", "tiny", 2, 7000, workers=1)


def row(seed, success, task="pick_cube", failure="", **metrics):
    ended = "success" if success else "step limit"
    return EpisodeRow(seed, "lift the red cube", "red", success, 3, 0, 4.8, 0.02, ended, 50.0, task, failure, metrics)


ROWS = [row(0, True, "stack", spl=0.8), row(1, False, "pick", "dropped", spl=0.2), row(2, True, "stack"), row(3, False)]


# What is summed up ----------------------------------------------------------------------------------------------------


def test_summary_counts_and_keeps_every_row():
    summary = summarize("widowx_pick", 7000, [row(7000, True), row(7001, False)], blind=False)
    assert (summary["episodes"], summary["successes"], summary["success_rate"]) == (2, 1, 0.5)
    assert [r["seed"] for r in summary["rows"]] == [7000, 7001] and rows_of(summary)[1] == row(7001, False)
    assert json.loads(json.dumps(summary)) == summary


def test_tasks_failures_and_metrics_are_summed_up():
    summary = summarize("widowx", 0, ROWS)
    rates = {task: (entry["successes"], entry["episodes"]) for task, entry in summary["tasks"].items()}
    assert rates == {"stack": (2, 2), "pick": (0, 1), "pick_cube": (0, 1)}
    assert summary["failures"] == {"dropped": 1, "step limit": 1}, "where the suite has no category, how it ended"
    assert summary["endings"] == {"success": 2, "step limit": 2}
    assert summary["spl"] == pytest.approx(0.5), "mean over the episodes that have it"


def test_why_chunks_were_refused_is_summed_up():
    refusals = [{}, {"VELOCITY_LIMIT": 1}, {"VELOCITY_LIMIT": 1, "SELF_COLLISION": 2}, {}]
    rows = [replace(r, refused=sum(why.values()), refusals=why) for r, why in zip(ROWS, refusals, strict=True)]
    summary = summarize("widowx", 0, rows)
    assert summary["refusals"] == {"VELOCITY_LIMIT": 2, "SELF_COLLISION": 2}
    assert rows_of(json.loads(json.dumps(summary))) == rows
    said = "4 of 12 chunks refused (VELOCITY_LIMIT 2, SELF_COLLISION 2)"
    assert refusals_as_text(rows) == said and said in as_markdown(summary)
    assert refusals_as_text(ROWS) == "0 of 12 chunks refused"


def test_a_metric_cannot_hide_another_figure():
    with pytest.raises(ValueError, match=r"'mine': metrics \['episodes'\]"):
        summarize("mine", 0, [row(0, True, episodes=1.0)])


def test_what_was_measured_is_said_and_written(tmp_path, capsys):
    summary = summarize("widowx", 9000, ROWS, shift="colour", checkpoint="checkpoints/tiny")
    print_summary(summary)
    said = capsys.readouterr().out
    assert "widowx: 2 of 4 (50 %, 15–85 %), seeds 9000–9003 (validation)\n" in said
    assert "  stack: 2 of 2 (100 %, 34–100 %)" in said
    assert "spl: 0.500" in said and "failures: dropped: 1; step limit: 1" in said
    part_of(tmp_path / "e.json").write_text('{"suite": "widowx", "files": []}\n')
    write_summary(summary, tmp_path / "e.json", tmp_path / "e.md")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.json", "e.md"]
    assert read_summary(tmp_path / "e.json") == {"generator": "qwen-vla evaluate", **summary}
    text = (tmp_path / "e.md").read_text()
    assert text.startswith(as_markdown(summary)) and text.startswith("# widowx (shift colour)\n")
    assert "seeds 9000–9003 (validation)." in text
    assert "| all | 2 of 4 (50 %, 15–85 %) |" in text and "| dropped | 1 |" in text


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        ({"limits_exceeded": False, "orphans": []}, True),
        ({"limits_exceeded": True, "orphans": []}, False),
        ({"limits_exceeded": False, "orphans": ["policy_node"]}, False),
    ],
)
def test_faults_are_withstood_only_within_the_limits_and_without_processes_left_behind(found, passed, capsys):
    summary = summarize("widowx", 9000, ROWS, chaos=True, faults={}, verdicts={}, tries={}, limits={}, **found)
    print_summary(summary)
    assert withstood(summary) == passed and ("NOT withstood" in capsys.readouterr().out) != passed
    assert withstood(summarize("widowx", 9000, ROWS))


def test_what_somebody_else_called_part_is_not_removed(tmp_path):
    part_of(tmp_path / "e.json").write_text("half a download")
    write_summary(summarize("widowx", 9000, ROWS), tmp_path / "e.json", None)
    assert part_of(tmp_path / "e.json").read_text() == "half a download"


def test_a_result_says_of_which_split_it_is(capsys):
    assert summarize("widowx", FIRST_TEST_SEED - 4, ROWS)["split"] == "validation"
    summary = summarize("widowx", FIRST_TEST_SEED, ROWS)
    assert summary["split"] == "test"
    print_summary(summary)
    assert "seeds 20000–20003 (test)" in capsys.readouterr().out


# One episode ----------------------------------------------------------------------------------------------------------


class ConstantPolicy:
    """The simplest policy there is: always the same delta of the gripper. It keeps what it was shown."""

    camera_tags, state_names = ("ego", "cam_wrist"), ()

    def __init__(self, delta):
        self.delta, self.shown = delta, []

    def infer(self, observation, seed=None):
        self.shown.append(observation)
        data = np.tile(np.float32([*self.delta, 0, 0, 0, 1]), (16, 1))
        names = ("x", "y", "z", "rx", "ry", "rz", "gripper")
        latency = {"total": 12.0}
        return ActionChunk(data, names, 0.2, "eef_delta", "widowx", observation.instruction, 0, latency, 8)


STAYS, REACHES_TOO_FAR = (0, 0, 0), (5.0, 0, 0)


@pytest.fixture(scope="module")
def suite():
    return load_suite("widowx_pick")


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env()
    yield env
    env.close()


def play(suite, env, policy, seed=7000, **conditions):
    return run_episode(suite, env, policy, seed, **conditions)


def test_a_policy_that_stays_where_it_is_reaches_the_step_limit(suite, env):
    policy = ConstantPolicy(STAYS)
    row = play(suite, env, policy)
    assert (row.success, row.ended, row.refused, row.task) == (False, "step limit", 0, "pick_cube")
    assert row.failure and row.category == row.failure
    assert row.chunks == len(policy.shown) == suite.max_steps / 8, "eight steps of every chunk are executed"
    assert row.seconds == pytest.approx(suite.max_steps * 0.2) and row.latency_ms_p50 == 12.0
    assert row.target.split()[0] in row.instruction.split() and policy.shown[0].instruction == row.instruction
    assert all(image.shape == (240, 320, 3) and image.any() for image in policy.shown[-1].images.values())


def test_chunks_out_of_reach_end_the_episode(suite, env):
    row = play(suite, env, ConstantPolicy(REACHES_TOO_FAR))
    assert (row.success, row.ended, row.refused, row.chunks) == (False, "refused too often", MAX_REFUSALS, MAX_REFUSALS)
    assert row.refusals == {"UNREACHABLE": MAX_REFUSALS}


def test_a_policy_is_told_how_many_of_its_latest_chunks_were_refused(suite, env):
    policy = ConstantPolicy(STAYS)
    infer = policy.infer

    def too_far_at_first(observation, seed=None):
        policy.delta = REACHES_TOO_FAR if len(policy.shown) < 2 else STAYS
        return infer(observation, seed)

    policy.infer = too_far_at_first
    play(suite, env, policy)
    assert [seen.refusals for seen in policy.shown[:5]] == [0, 1, 2, 0, 0]


def test_chunks_for_another_robot_are_refused_in_process_too(suite, env):
    policy = ConstantPolicy(STAYS)
    infer = policy.infer
    policy.infer = lambda observation, seed=None: replace(infer(observation, seed), embodiment="aloha", period=0.1)
    row = play(suite, env, policy)
    assert row.ended == "refused too often"
    assert row.refusals == {"WRONG_EMBODIMENT": MAX_REFUSALS, "WRONG_SHAPE": MAX_REFUSALS}


def test_blind_shows_black_images_and_nothing_else_changes(suite, env):
    policy = ConstantPolicy(REACHES_TOO_FAR)
    row = play(suite, env, policy, blind=True)
    assert set(policy.shown[0].images) == {"ego", "cam_wrist"}
    assert all(image.shape == (240, 320, 3) and not image.any() for o in policy.shown for image in o.images.values())
    assert row.instruction == play(suite, env, ConstantPolicy(REACHES_TOO_FAR)).instruction


def test_a_policy_is_shown_its_cameras_and_its_joints_in_its_order(suite, env):
    policy, observation = ConstantPolicy(STAYS), env.reset(seed=7000)[0]
    policy.camera_tags, policy.state_names = ("cam_wrist",), suite.embodiment.joint_names[2:0:-1]
    seen = shown_to(policy, suite, observation, "lift it")
    assert seen.images.keys() == {"cam_wrist"} and seen.instruction == "lift it"
    np.testing.assert_array_equal(seen.state, observation["joints"][[2, 1]])


@pytest.mark.parametrize("seed", range(7000, 7003))
def test_shuffled_instructions_name_another_cube_but_the_first_one_is_judged(suite, env, seed):
    true = play(suite, env, ConstantPolicy(REACHES_TOO_FAR), seed)
    policy = ConstantPolicy(REACHES_TOO_FAR)
    row = play(suite, env, policy, seed, shuffle_instructions=True)
    assert row.target == true.target and row.distance == true.distance
    assert policy.shown[0].instruction == row.instruction != true.instruction
    assert true.target.removesuffix(" cube") not in row.instruction.split()


def test_a_film_has_what_the_policy_saw_and_the_end_and_changes_nothing(suite, env):
    unseen, film = play(suite, env, ConstantPolicy(STAYS)), Film()
    assert play(suite, env, ConstantPolicy(STAYS), film=film) == unseen
    assert [look.seconds for look in film.looks] == pytest.approx(np.arange(11) * 1.6)
    assert all(image.any() for look in film.looks for image in look.images.values())
    assert env.render_size == (240, 320)


def test_a_film_can_look_between_and_keeps_why_a_chunk_was_refused(suite, env):
    film = Film(every=4)
    play(suite, env, ConstantPolicy(REACHES_TOO_FAR), film=film)
    assert [look.seconds for look in film.looks] == pytest.approx(np.arange(9) * 0.8), "also between two looks"
    assert all(look.remark.startswith("refused: ") for look in film.looks)


class WildPolicy:
    """Asks any robot for what it must not do."""

    def __init__(self, robot):
        self.robot = robot
        self.camera_tags, self.state_names = [camera.tag for camera in robot.cameras], ()

    def infer(self, observation, seed=None):
        names = tuple(self.robot.channel_names)
        data = np.full((self.robot.chunk_size, len(names)), 50.0, np.float32)
        mode, executed = self.robot.control_mode, self.robot.chunk_size // 2
        ends = mode, self.robot.name, observation.instruction, 0, {"total": 1.0}, executed
        return ActionChunk(data, names, self.robot.period, *ends)


@pytest.mark.parametrize("name", ["widowx", "aloha", "mobile_base"])
def test_every_suite_is_played_judged_and_filmed_alike(name):
    suite = load_suite(name)
    env = suite.make_env(shift=suite.shifts[0])
    seed = 9000 + len(suite.tasks) - 1
    film, other = Film(every=frame_step(env.period)), Film()
    try:
        true = run_episode(suite, env, WildPolicy(suite.embodiment), seed, film=film)
        shuffled = run_episode(suite, env, WildPolicy(suite.embodiment), seed, shuffle_instructions=True, film=other)
    finally:
        env.close()
    assert (true.task, true.ended, true.success) == (suite.task_of(seed), "refused too often", False)
    assert true.category not in ("success", true.ended), "the suite says how far it got"
    assert summarize(name, seed, [true])["tasks"].keys() == {true.task}
    assert replace(shuffled, instruction=true.instruction) == true and shuffled.instruction != true.instruction
    assert len(strip(other, suite.embodiment.cameras[0].tag)) == MAX_REFUSALS
    assert len(list(frames(film, true, max(0.1, env.period)))) > len(other.looks)


def test_an_end_between_two_pictures_is_filmed_as_soon_as_there_is_one():
    """ALOHA's cameras show every fifth step, and the episode ends in the middle of a chunk."""
    suite, film = load_suite("aloha"), Film()
    env = suite.make_env()
    env.max_steps = 12
    try:
        row = run_episode(suite, env, WildPolicy(suite.embodiment), 9000, film=film)
    finally:
        env.close()
    assert (row.ended, row.seconds) == ("step limit", pytest.approx(0.24))
    assert [look.seconds for look in film.looks] == pytest.approx([0.0, 0.3])
    assert all(image.any() for image in film.looks[-1].images.values())


# The whole ------------------------------------------------------------------------------------------------------------


def test_seeds_of_the_training_data_are_refused(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps({"data": [{"seeds": [100, 200]}]}))
    refuse_trained_seeds(tmp_path, 200, 50)
    with pytest.raises(ValueError, match="overlap with the training data"):
        refuse_trained_seeds(tmp_path, 190, 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": FIRST_TEST_SEED - 1}, "seeds 19999…20000 are of more than one split"),
        ({"seed": FIRST_TRAINING_SEED}, "training scenes: success on them proves nothing; choose .* --seed 9000"),
        ({"seed": FIRST_TEST_SEED, "chaos": True}, "--chaos needs validation seeds, got test seeds"),
    ],
)
def test_seeds_are_of_one_split_that_can_be_evaluated_on(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **changes).check()


def test_a_run_on_test_seeds_is_announced(capsys):
    options = replace(OPTIONS, seed=FIRST_TEST_SEED)
    assert (OPTIONS.split, options.split) == ("validation", "test")
    announce_test(range(options.seed, options.seed + options.episodes))
    assert capsys.readouterr().err.startswith("test seeds 20000–20001: use once, at the end.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": "sideways"}, "'widowx_pick' has no shift 'sideways'; it offers: "),
        ({"prompt_of": "widowx"}, "the prompt of widowx is that of suite"),
        ({"prompt_of": "robbie"}, "unknown robot 'robbie'"),
        ({"suite": "chess"}, "unknown suite 'chess'"),
        ({"chaos": True}, "add --over-ros"),
        (
            {"policy": "chess://knight"},
            "no package provides the policy 'chess://knight'; installed: groot://, mock://, openpi://, qwen_vla://",
        ),
        ({"policy": "mock://hold", "prompt_of": "aloha"}, "prompt of a checkpoint; mock://hold is none"),
    ],
)
def test_what_is_wrong_is_found_before_anything_starts(changes, message):
    with pytest.raises((ValueError, KeyError), match=message):
        check(replace(OPTIONS, **changes))


def test_a_result_names_its_checkpoint_and_its_training_from_where_it_was_made(checkpoint, tmp_path, monkeypatch):
    shutil.copytree(checkpoint, tmp_path / "model")
    (tmp_path / "model/training.json").write_text('{"step": 4000, "data": []}')
    options = replace(OPTIONS, policy=str(tmp_path / "model"), shift="colour")
    assert options.conditions(over_ros=True)["checkpoint"] == str(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    found = options.conditions(over_ros=True)
    assert (found["checkpoint"], found["step"], found["shift"], found["over_ros"]) == ("model", 4000, "colour", True)
    assert replace(OPTIONS, policy=str(checkpoint)).conditions()["step"] is None


def test_a_checkpoint_without_the_robot_is_named(checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "embodiments.json").unlink()
    (tmp_path / "embodiments.json").write_text("{}")
    with pytest.raises(ValueError, match="was not trained for widowx; it knows none"):
        check(replace(OPTIONS, policy=str(tmp_path)))


def test_a_policy_that_is_no_checkpoint_is_named_by_its_reference_and_has_no_training():
    options = replace(OPTIONS, policy="mock://hold")
    check(options)
    found = options.conditions()
    assert (options.checkpoint, found["checkpoint"], found["step"]) == (None, "mock://hold", None)


def test_another_robots_prompt_changes_the_prompt_alone():
    players = [_Player(replace(OPTIONS, prompt_of=robot)) for robot in (None, "aloha")]
    own, other = (player.policy for player in players)
    assert own.prompt("lift it") == load_robot("widowx").prompt("lift it")
    assert other.prompt("lift it") == load_robot("aloha").prompt("lift it") != own.prompt("lift it")
    assert replace(other.embodiment, prompt_template=own.embodiment.prompt_template) == own.embodiment


@pytest.fixture
def micro_options(fitting_checkpoint, tmp_path):
    """Of a model with random weights, whose chunks are all refused, so that episodes are short."""
    places = {"json": tmp_path / "e.json", "sheet": tmp_path / "sheet.png", "videos": tmp_path / "videos"}
    return replace(OPTIONS, policy=str(fitting_checkpoint), **places)


def test_a_player_plays_and_films_the_same_episode(micro_options):
    player = _Player(micro_options)
    played, filmed = player.play(7001), player.film(7001)
    player.env.close()
    assert played.row.ended == "refused too often" and len(played.pictures) == MAX_REFUSALS
    assert replace(played.row, latency_ms_p50=0.0) == replace(filmed, latency_ms_p50=0.0)
    assert [path.stem for path in micro_options.videos.iterdir()] == [filmed.category.replace(" ", "_")]


def test_what_is_kept_is_not_played_again(micro_options):
    film = Film(looks=[Look({"ego": np.zeros((120, 160, 3), np.uint8)}, 0.0)])
    kept_rows = [replace(row(seed, True), instruction="played before the interruption") for seed in (7000, 7001)]
    options = replace(micro_options, videos=None)
    with PartialResults(options.json, options.suite, options.checkpoint, options.conditions()) as kept:
        for kept_row in kept_rows:
            kept.add(Played(kept_row, strip(film, "ego")))
    summary = evaluate(options)
    assert rows_of(summary) == kept_rows and options.sheet.is_file()
    assert part_of(options.json).is_file(), "until the caller has written the summary"


@pytest.mark.parametrize(("suite", "said"), [("mobile_base", True), ("widowx", False)])
def test_a_result_says_with_which_path_the_robots_is_compared_if_it_is(suite, said, tmp_path, capsys):
    options = replace(OPTIONS, suite=suite, policy="mock://hold", json=tmp_path / "e.json")
    with PartialResults(options.json, suite, None, options.conditions()) as kept:
        for seed in options.seeds(load_suite(suite)):
            kept.add(Played(row(seed, True)))
    summary = evaluate(options)
    print_summary(summary)
    reference = "the shortest path from the start to the goal, a point every 0.1 m; success takes a stop within 0.5 m"
    assert (reference in (summary["reference_path"] or "")) == said
    assert (f"  paths are compared with {reference}" in capsys.readouterr().out) == said


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_interrupted(micro_options):
    result = micro_options.json
    command = [sys.executable, "-m", "qwen_vla", "evaluate", "widowx_pick", "--episodes", "40", "--workers", "1"]
    command += ["--seed", "7000", "--policy", micro_options.policy]
    command += ["--json", result, "--videos", micro_options.videos]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        while not (part_of(result).exists() and part_of(result).read_text().count("\n") > 2):
            assert first.poll() is None
            threading.Event().wait(0.05)
        first.send_signal(signal.SIGINT)
        assert "interrupted; " in first.communicate(timeout=60)[1] and first.returncode == 130
    before = [json.loads(line)["row"] for line in part_of(result).read_text().splitlines()[1:]]
    assert 2 <= len(before) < 40 and not result.exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    rows = json.loads(result.read_text())["rows"]
    assert rows[: len(before)] == before and [row["seed"] for row in rows] == list(range(7000, 7040))
    assert not part_of(result).exists()
    assert {path.stem for path in micro_options.videos.glob("*.mp4")} == {
        row["failure"].replace(" ", "_") for row in rows
    }
