# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/results.md and of the benchmarks' model cards: their figures are those in docs/results."""

import json
from pathlib import Path

import pytest

from qwen_vla.evaluation.intervals import wilson_interval

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The script as a module, with results of its own."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results_page

    monkeypatch.setattr(results_page, "RESULTS", tmp_path)
    for benchmark in results_page.BENCHMARKS.values():
        write(tmp_path, f"{benchmark.name}_expert.json", rate(99, 100))
    return results_page


def rate(successes, episodes):
    interval = list(wilson_interval(successes, episodes))
    return {
        "episodes": episodes,
        "successes": successes,
        "success_rate": successes / episodes,
        "wilson_95": interval,
    }


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def test_a_benchmark_without_a_result_has_its_expert_and_no_figure(page, tmp_path):
    write(tmp_path, "metaworld_expert.json", rate(199, 200))
    simpler, metaworld = [line for line in page.benchmarks().splitlines() if line.startswith(("| Simpler", "| Meta"))]
    assert simpler.startswith("| Simpler-WidowX | – | – | 99 of 100 (95–100 %) | X-VLA 95.8, Qwen-VLA 73.7, ")
    assert metaworld.startswith("| Meta-World MT50 | – | – | 199 of 200 (97–100 %) | SmolVLA-0.45B 57.3, ")


def test_a_result_stands_with_interval_groups_and_what_it_was_trained_on(page, tmp_path):
    result = {"score": 0.125, "trained_on": "our own", "complete": False, "starts": "official", "executed_rows": 4}
    result |= {"groups": {"spoon": rate(1, 4)}, "failures": {"lost": 3}}
    result |= {"tasks": dict.fromkeys(page.BENCHMARKS["Simpler-WidowX"].tasks)}
    write(tmp_path, "simpler_widowx.json", rate(3, 24) | result)
    write(tmp_path, "simpler_widowx_validation.json", rate(2, 4) | result | {"score": 0.5, "starts": "validation"})
    text = page.benchmarks()
    assert "| Simpler-WidowX | **12.5**; 3 of 24 (4–31 %) | **50.0**; 2 of 4 (15–85 %) | " in text
    assert "official start states, a part of the protocol, 24 episodes, rows of a chunk executed: 4; spoon 1 of" in text
    assert "validation start states, 4 episodes, " in text
    assert text.count("Failures: lost: 3. Trained on our own.") == 2
    write(tmp_path, "simpler_widowx.json", rate(3, 24) | result | {"executed_rows": None})
    write(tmp_path, "metaworld.json", rate(1, 2) | result | {"tasks": {"reach": rate(1, 2)}})
    assert "| Meta-World MT50 | **12.5** on 1 of the 50 tasks; 1 of 2 (" in page.benchmarks()
    assert "24 episodes, rows of a chunk executed: as many as the policy says; spoon" in page.benchmarks()


def test_the_papers_figures_stand_beside_ours_where_there_are_any(page, tmp_path):
    ours = {"file": "base.json", "figure": "spl"}
    row = {"benchmark": "R2R, SPL", "paper": "51.2", "difference": "other rooms"}
    write(tmp_path, "paper.json", {"rows": [row, row | {"ours": ours}]})
    without, absent = page.paper().splitlines()[2:]
    assert without == absent == "| R2R, SPL | 51.2 | – | other rooms |"
    write(tmp_path, "base.json", {"spl": 0.826})
    assert page.paper().splitlines()[3] == "| R2R, SPL | 51.2 | 82.6 | other rooms |"


def test_the_readme_states_the_success_of_the_three_suites_with_intervals(page, tmp_path):
    for suite, successes in (("widowx", 82), ("aloha", 53), ("mobile_base", 92)):
        write(tmp_path, f"{suite}.json", rate(successes, 100))
    readme = page.with_success("<!-- success: generated -->\n<!-- end of success -->")
    assert ": WidowX 82 of 100 (73–88 %), ALOHA 53 of 100 (43–62 %), mobile base 92 of 100 (85–96 %)." in readme


def test_a_model_card_has_a_row_for_each_group_of_several_tasks_and_names_without_common_words(page, tmp_path):
    libero = page.BENCHMARKS["LIBERO"]
    bowl = "pick_up_the_black_bowl_{}_and_place_it_on_the_plate"
    tasks = {bowl.format("on_the_ramekin"): rate(1, 5), bowl.format("on_the_stove"): rate(5, 5)}
    result = rate(6, 10) | {"starts": "official", "tasks": tasks, "groups": {"libero_spatial": rate(6, 10)}}
    write(tmp_path, "libero.json", result)
    card = page.with_figures("<!-- figures: generated -->\n<!-- end of figures -->", libero)
    assert "| official | 6 of 10 (60 %, 31–83 %) |  |" in card
    assert "| official, libero spatial | 6 of 10 (60 %, 31–83 %) | stove 5/5, ramekin 1/5 |" in card
    assert "validation" not in card and "object" not in card


def test_a_model_card_of_single_tasks_has_one_row_for_them(page, tmp_path):
    simpler = page.BENCHMARKS["Simpler-WidowX"]
    tasks = {"spoon_on_towel": rate(1, 2), "stack_cube": rate(2, 2)}
    write(tmp_path, "simpler_widowx_validation.json", rate(3, 4) | {"starts": "validation", "tasks": tasks})
    card = page.with_figures("<!-- figures: generated -->\n<!-- end of figures -->", simpler)
    assert "| validation | 3 of 4 (75 %, 30–95 %) | stack cube 2/2, spoon on towel 1/2 |" in card


def test_the_index_of_a_model_card_has_the_rates_of_groups_and_of_all(page, tmp_path):
    result = {"starts": "official", "tasks": {}, "groups": {"libero_spatial": rate(6, 10)}}
    write(tmp_path, "libero.json", rate(16, 20) | result)
    one = (
        "    dataset:\n      name: {}\n      type: libero\n      split: test\n    metrics:\n    - type: success_rate\n"
        "      value: {}\n      name: success rate (95 % interval {})\n"
    )
    names = ("libero_spatial, a suite", "LIBERO")
    before = "".join(one.format(name, "1.0", "0.93 to 1.00") for name in names)
    figures = "<!-- figures: generated -->\n<!-- end of figures -->"
    after = one.format(names[0], "0.60", "0.31 to 0.83") + one.format(names[1], "0.80", "0.58 to 0.92")
    assert page.with_figures(before + figures, page.BENCHMARKS["LIBERO"]).startswith(after)


def test_every_benchmarks_model_card_has_an_index_that_is_made_again(page):
    for benchmark in page.BENCHMARKS.values():
        card = (page.ROOT / "checkpoints" / benchmark.name / "README.md").read_text()
        assert len(page.MEASURED.findall(card)) == card.count("- type: success_rate") > 0


def test_only_what_stands_between_the_markers_is_replaced(page):
    text = "before\n<!-- a: generated -->\nold\n<!-- end of a -->\nafter"
    assert page.with_block(text, "a", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="<!-- b: generated -->"):
        page.with_block(text, "b", "new")
