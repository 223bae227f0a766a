# SPDX-License-Identifier: Apache-2.0
"""`make ablations`: what was measured is kept, and counts only for the recipes and weights of which it was measured."""

import json
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
NOISE = "τ ~ Beta(1.5, 1): more at the noise end, as π0"


@pytest.fixture
def ablations(tmp_path, monkeypatch):
    """The script as a module, with results and recipes of its own."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import ablations

    for name in ("data", "SFT", "T2A"):
        (tmp_path / name).write_text(name)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    changed = {"RESULTS": "results.json", "PAGE": "page.md", "PICTURE": "page.png", "BACKBONE": ".", "T2A": "T2A"}
    for name, place in changed.items():
        monkeypatch.setattr(ablations, name, tmp_path / place)
    return ablations


def measured(ablations, folder, seed, successes):
    """Record an evaluation of 100 scenes, and a training with two held-out errors."""
    folder.mkdir()
    (folder / "euler4.json").write_text(
        json.dumps({"successes": successes, "episodes": 100, "success_rate": successes / 100})
    )
    log = [{"step": step, ablations.ERROR: error} for step, error in ((50, 60.0), (100, 40.0 + seed))]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    ablations.record(NOISE, seed, folder / "euler4.json", folder)


def test_results_of_all_seeds_make_a_row_with_intervals_and_curves(ablations, tmp_path):
    for seed, successes in ((1, 0), (0, 18)):
        measured(ablations, tmp_path / str(seed), seed, successes)
    (of_seeds,) = ablations.read_results().values()
    assert of_seeds["0"]["held_out_mm"] == [[50, 60.0], [100, 40.0]]
    assert ablations.row(NOISE, of_seeds) == f"| {NOISE} | 18 of 200 (6–14 %) | 18, 0 | 40.5 ± 0.7 |\n"
    ablations.write_page(ablations.Options())
    page = (tmp_path / "page.md").read_text()
    assert "| 18 of 200 (6–14 %) | 18, 0 |" in page and "| a T2A stage first | – | – | – |" in page
    assert (tmp_path / "page.png").stat().st_size > 1000


def test_what_is_measured_is_not_run_again(ablations, tmp_path, monkeypatch):
    measured(ablations, tmp_path / "0", 0, 18)
    found = ablations.read_results()
    monkeypatch.setattr(ablations, "read_results", lambda: found | {"10 Euler steps instead of 4": found[NOISE]})
    monkeypatch.setattr(ablations, "train", lambda *_: pytest.fail("it was trained again"))
    ablations.run_one("noise", 0, ablations.Options())


def test_results_of_other_weights_are_shown_and_not_counted(ablations, tmp_path):
    measured(ablations, tmp_path / "0", 0, 18)
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert ablations.read_results() == {} and set(ablations.read_results(whatever_basis=True)) == {NOISE}


def test_a_page_of_no_results_is_refused(ablations, monkeypatch):
    monkeypatch.setattr(ablations, "RESULTS", ablations.ROOT / "docs/results/none.json")
    monkeypatch.setattr("sys.argv", ["ablations.py", "--only-page"])
    with pytest.raises(SystemExit, match="docs/results/none.json does not exist"):
        ablations.main()
