# SPDX-License-Identifier: Apache-2.0
"""Public benchmarks: what they count, what they write, how they resume, and that training states stay apart."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from benchmarks.public.metaworld.benchmark import METAWORLD
from benchmarks.public.protocol.command import main
from benchmarks.public.protocol.evaluate import evaluate
from benchmarks.public.protocol.evaluate_options import EvaluateOptions
from benchmarks.public.protocol.result import as_text, summarize, trained_on
from benchmarks.public.protocol.trials import FIRST_EXPERT, STATES_PER_TASK
from benchmarks.public.protocol.world_process import ROOT, WorldError, WorldProcess
from benchmarks.public.protocol.world_server import received, sendable
from benchmarks.public.test.fake import BROKEN, FAKE, HOME
from qwen_vla.evaluation.intervals import wilson_interval
from qwen_vla.evaluation.partial_results import part_of
from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla.parallel import WorkerError

PATHS = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def world():
    """The fake simulator in its process."""
    process = WorldProcess(FAKE.environment.python, FAKE.module)
    yield process
    process.close()


def options(folder, **others):
    return EvaluateOptions(policy="mock://hold", json=folder / "result.json", **others)


def row(task, success, start=0):
    return EpisodeRow(
        start, task, task, success, 1, 0, 1.0, 0.1, "success", 5.0, task, "" if success else "stood still"
    )


# --- start states -----------------------------------------------------------------------------------------------------


def test_no_start_state_serves_two_purposes():
    everything = (METAWORLD.trials, METAWORLD.expert_trials, METAWORLD.demonstrations)
    states = [{trial.start for trial in of(METAWORLD.tasks, STATES_PER_TASK)} for of in everything]
    assert [len(numbers) for numbers in states] == [50 * STATES_PER_TASK] * 3, "nor do two tasks share one"
    assert not states[0] & states[1] and not states[0] & states[2] and not states[1] & states[2]


def test_a_state_does_not_depend_on_which_others_are_asked_for():
    assert METAWORLD.trials(["push"], 3) == [t for t in METAWORLD.trials(METAWORLD.tasks, 5) if t.task == "push"][:3]


def test_more_episodes_than_states_are_refused():
    with pytest.raises(ValueError, match="1 to 1000, got 1001"):
        METAWORLD.trials(["push"], 1001)


def test_tasks_are_selected_by_name_and_by_group():
    assert FAKE.selected(()) == ("hold", "lift") and FAKE.selected(("hard",)) == ("lift",)
    assert METAWORLD.selected(("push", "hard")) == METAWORLD.groups["hard"]
    with pytest.raises(ValueError, match="fake has no task or group 'fly'; it has hold, lift, easy, hard"):
        FAKE.selected(("fly",))
    with pytest.raises(ValueError, match=r"no task or group 'liftt'; did you mean 'lift'\?"):
        FAKE.selected(("liftt",))


def test_meta_world_has_the_published_groups():
    assert [len(tasks) for tasks in METAWORLD.groups.values()] == [28, 11, 6, 5]
    few = METAWORLD.selected(("few",))
    assert len(few) == 10 and all(set(few) & set(tasks) for tasks in METAWORLD.groups.values())


# --- the result -------------------------------------------------------------------------------------------------------


def test_the_score_is_the_mean_of_the_groups_not_of_the_episodes():
    rows = [row("hold", True)] * 6 + [row("lift", True), row("lift", False)]
    found = summarize(FAKE, rows)
    assert found["success_rate"] == 7 / 8 and found["score"] == (1.0 + 0.5) / 2
    assert found["wilson_95"] == list(wilson_interval(7, 8)) and found["tasks"]["lift"]["wilson_95"][1] < 1.0
    assert found["failures"] == {"stood still": 1}


def test_a_part_of_the_protocol_is_called_so():
    whole = [row(task, True) for task in FAKE.tasks for _ in range(4)]
    assert summarize(FAKE, whole)["complete"]
    assert not summarize(FAKE, whole[:-1])["complete"] and not summarize(FAKE, whole[:4])["complete"]


def test_a_measurement_for_validation_is_not_the_protocol():
    whole = [row(task, True, FIRST_EXPERT) for task in FAKE.tasks for _ in range(4)]
    found = summarize(FAKE, whole, starts="validation", trained_on="", checkpoint="")
    assert not found["complete"] and "not the protocol's" in as_text(found)
    assert EvaluateOptions(validation=True).result_file(FAKE) != EvaluateOptions().result_file(FAKE)


def test_what_a_checkpoint_was_trained_on_is_read_from_its_record(tmp_path):
    source = {"kind": "demonstrations", "robot": "sawyer", "total_episodes": 12, "seeds": [1_000_000, 1_000_012]}
    again = [source | {"total_episodes": 5, "hash": "ab", "path": path} for path in ("here", "there")]
    sources = [source, source | {"total_episodes": 995}, source | {"robot": "aloha"}, *again]
    (tmp_path / "training.json").write_text(json.dumps({"data": sources}))
    assert trained_on(tmp_path) == "our own scripted 1,012 demonstrations of sawyer, 12 demonstrations of aloha"
    (tmp_path / "training.json").unlink()
    assert trained_on(tmp_path).startswith("unknown") and trained_on(None).startswith("unknown")


# --- a whole measurement ----------------------------------------------------------------------------------------------


def test_a_served_policy_is_measured_and_everything_is_written(tmp_path):
    chosen = options(tmp_path, sheet=tmp_path / "sheet.png", videos=tmp_path / "videos", workers=2)
    found = evaluate(FAKE, chosen)
    assert found["tasks"]["hold"]["successes"] == 2 and found["tasks"]["lift"]["successes"] == 0
    assert found["score"] == 0.25 and found["complete"] and found["failures"] == {"did not move": 6}
    written = json.loads((tmp_path / "result.json").read_text())
    needed = {"benchmark", "protocol", "checkpoint", "trained_on", "episodes", "success_rate", "wilson_95", "tasks"}
    assert needed <= written.keys() and written["episodes"] == 8
    assert sorted(path.name for path in (tmp_path / "videos").glob("*.mp4")) == ["did_not_move.mp4", "success.mp4"]
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert not part_of(tmp_path / "result.json").exists()
    text = as_text(found)
    assert "score 25.0" in text and "hard: 0 of 4" in text and "somebody 50" in text
    by_start = {each["seed"]: each["seconds"] for each in written["rows"]}
    assert by_start[0] == 1.0 and by_start[1] == 2.0, "success ends an episode"


def test_an_interrupted_measurement_resumes_and_ends_with_the_same_result(tmp_path, monkeypatch):
    undisturbed = evaluate(FAKE, options(tmp_path / "whole"))
    (tmp_path / "broken").write_text("1001")
    monkeypatch.setenv(BROKEN, str(tmp_path / "broken"))
    with pytest.raises(WorkerError, match="ended with status 7"):
        evaluate(FAKE, options(tmp_path))
    kept = part_of(tmp_path / "result.json").read_text().splitlines()
    assert len(kept) == 1 + 5, "conditions, and the episodes before the simulator died"
    (tmp_path / "broken").unlink()
    found = evaluate(FAKE, options(tmp_path))
    assert [{**each, "latency_ms_p50": 0} for each in found["rows"]] == [
        {**each, "latency_ms_p50": 0} for each in undisturbed["rows"]
    ]


COMMAND = """
from benchmarks.public.protocol.command import main
from benchmarks.public.test.fake import FAKE
if __name__ == "__main__":
    main(FAKE)
"""


def said_until_some_are_done(command: subprocess.Popen, total: bytes) -> bytes:
    """What a command says until its progress of this `total` is no longer 0."""
    said = b""
    while total not in said or b"| 0" + total in said.rpartition(b"\r")[2]:
        heard = command.stderr.read1()
        assert heard, said.decode()
        said += heard
    return said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["evaluate", "--rows", "-2"], "fake: --rows -2: it must be at least 0"),
        (["evaluate", "--workers", "0"], "fake: --workers 0: it must be at least 1"),
        (["record", "--out", "data", "--per-task", "-3"], "fake: --per-task -3: it must be at least 1"),
        (["expert", "--episodes", "0"], "fake: --episodes 0: it must be at least 1"),
    ],
)
def test_a_command_refuses_numbers_out_of_range_and_writes_nothing(tmp_path, monkeypatch, words, why):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fake", *words])
    monkeypatch.setattr(signal, "signal", lambda *handler: None)  # it would be that of the tests' process, too
    with pytest.raises(SystemExit) as refused:
        main(FAKE)
    assert refused.value.code == why and not list(tmp_path.iterdir())


@pytest.mark.timeout(120)
def test_a_command_that_is_terminated_ends_its_server_and_keeps_what_is_done(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)
    result = tmp_path / "result.json"
    words = ["evaluate", "--policy", "mock://hold", "--episodes", "1000", "--json", str(result)]
    with subprocess.Popen([sys.executable, tmp_path / "command.py", *words], stderr=subprocess.PIPE, env=PATHS) as done:
        said = said_until_some_are_done(done, b"/2000 [")
        started = psutil.Process(done.pid).children(recursive=True)
        assert any("serve" in process.cmdline() for process in started)
        done.send_signal(signal.SIGTERM)
        said += done.stderr.read()
    assert done.returncode == 1 and b"the same command resumes" in said and b"Traceback" not in said
    assert not psutil.wait_procs(started, timeout=30)[1], "what it started ends, too"
    assert len(part_of(result).read_text().splitlines()) > 1


@pytest.mark.timeout(120)
def test_a_recording_that_is_terminated_says_how_to_go_on(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)
    words = ["record", "--out", str(tmp_path / "data"), "--per-task", "1000"]
    with subprocess.Popen([sys.executable, tmp_path / "command.py", *words], stderr=subprocess.PIPE, env=PATHS) as done:
        said = said_until_some_are_done(done, b"/200 [")
        done.send_signal(signal.SIGTERM)
        said += done.stderr.read()
    assert done.returncode == 1 and b"data keeps what is done, the same command resumes" in said
    assert b"Traceback" not in said


def test_states_of_training_are_refused(tmp_path):
    from benchmarks.public.protocol.evaluate import refuse_trained_seeds

    (tmp_path / "training.json").write_text(json.dumps({"data": [{"seeds": [1_000_000, 1_001_000]}]}))
    trials = FAKE.demonstrations(FAKE.tasks, 1)
    with pytest.raises(ValueError, match="overlap with the training data"):
        refuse_trained_seeds(tmp_path, trials[0].start, 1)
    refuse_trained_seeds(tmp_path, FAKE.trials(FAKE.tasks, 1000)[-1].start, 1)


# --- the simulator's process ------------------------------------------------------------------------------------------


def test_arrays_arrive_as_they_were_sent():
    sent = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3), "text"], "b": np.uint8(7), "c": None}
    got = received(sendable(sent))
    assert got["b"] == 7 and got["c"] is None and got["a"][1] == "text"
    np.testing.assert_array_equal(got["a"][0], sent["a"][0])
    assert got["a"][0].dtype == np.float32


def test_an_error_of_the_simulator_is_reported_and_the_next_request_served(world):
    world.start("hold", 0)
    with pytest.raises(WorldError, match=r"(?s)execute failed:.*leaves its place"):
        world.execute(np.array([[0.5, 0.6, 0.2, 1.0]]), False)
    assert world.execute(np.array([[*HOME[:3], 1.0]]), False)["seconds"] == 0.05


def test_a_simulator_that_died_is_named_with_its_status(world, tmp_path, monkeypatch):
    (tmp_path / "broken").write_text("3")
    monkeypatch.setenv(BROKEN, str(tmp_path / "broken"))
    dying = WorldProcess(FAKE.environment.python, FAKE.module)
    with pytest.raises(WorldError, match="benchmarks.public.test.fake ended with status 7"):
        dying.start("hold", 3)
    dying.close()
    assert world.start("hold", 3)["instruction"] == "hold the hand", "each simulator is a process of its own"
