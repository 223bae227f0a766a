"""The evaluation's arithmetic, and its refusal to be tested on what it was trained on."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla.evaluation.in_process import refuse_trained_seeds
from qwen_vla.evaluation.report import EpisodeRow, summarize, wilson_interval


def test_wilson_interval_of_a_published_example():
    low, high = wilson_interval(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert low == pytest.approx(0.2553, abs=5e-5) and high == pytest.approx(0.3662, abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate(case):
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


def row(seed, success):
    return EpisodeRow(seed, "lift the red cube", "red", success, 3, 0, 4.8, 0.02, "success", 50.0)


def test_summary_counts_and_keeps_every_row():
    summary = summarize("widowx_pick", 7000, [row(7000, True), row(7001, False)], blind=False)
    assert (summary["episodes"], summary["successes"], summary["success_rate"]) == (2, 1, 0.5)
    assert [r["seed"] for r in summary["rows"]] == [7000, 7001]
    assert json.loads(json.dumps(summary)) == summary


def test_seeds_of_the_training_data_are_refused(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps({"data": [{"seeds": [100, 200]}]}))
    refuse_trained_seeds(tmp_path, 200, 50)
    with pytest.raises(ValueError, match="overlap with the training data"):
        refuse_trained_seeds(tmp_path, 190, 20)
