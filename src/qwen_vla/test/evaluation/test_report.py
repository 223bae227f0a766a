# SPDX-License-Identifier: Apache-2.0
"""The report page: its comparisons, no external resources, and errors for invalid files."""

import json
import re
from html.parser import HTMLParser

import pytest

from qwen_vla.evaluation.comparison import compare, comparisons
from qwen_vla.evaluation.report import named, names_of, report, title_of, write_report
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.evaluation.tables import as_markdown_page
from qwen_vla.seeds import FIRST_TEST_SEED

PLAIN = {"checkpoint": "tiny", "step": 4000, "shift": None, "blind": False, "euler_steps": 4}


def evaluation(successes, episodes=20, suite="widowx", seed=9000, **conditions):
    """Episodes of two tasks in turn, of which the first ones succeed."""
    rows = []
    for i in range(episodes):
        ended, failure = ("success", "") if i < successes else ("step limit", "not <touched>")
        task, latency = ("pick", "stack")[i % 2], 40.0 + i
        ends = ended, latency, task, failure, {"spl": 0.5}
        rows.append(EpisodeRow(i, "lift it", "cube", i < successes, 3, 1, 5.0, 0.1, *ends, {"START_JUMP": 1}))
    return summarize(suite, seed, rows, **(PLAIN | conditions))


EVALUATIONS = {
    "colour": evaluation(10, shift="colour"),
    "joint": evaluation(18),
    "alone": evaluation(4, checkpoint="alone", step=2000),
    "alone_colour": evaluation(3, checkpoint="alone", step=2000, shift="colour"),
    "base": evaluation(12, suite="mobile_base"),
}


def test_evaluations_are_compared_that_differ_in_one_condition():
    found = {(c.condition, c.first, c.second): c for c in comparisons(EVALUATIONS)}
    assert found.keys() == {
        ("checkpoint", "colour", "alone_colour"),
        ("checkpoint", "joint", "alone"),
        ("shift", "joint", "colour"),
        ("shift", "alone", "alone_colour"),
    }
    assert found["shift", "joint", "colour"].values == (None, "colour"), "what is in distribution is the reference"
    assert found["checkpoint", "joint", "alone"].values == ("tiny", "alone"), "the first of two checkpoints"


def test_an_evaluation_of_one_task_is_compared_with_others_of_that_task():
    alone = {"task": "pick", "checkpoint": "alone"}
    evaluations = EVALUATIONS | {"pick": evaluation(10, task="pick"), "pick_alone": evaluation(2, **alone)}
    found = [c for c in comparisons(evaluations) if {c.first, c.second} & {"pick", "pick_alone"}]
    assert [(c.condition, c.first, c.second) for c in found] == [("checkpoint", "pick", "pick_alone")]
    assert "| pick | tiny | only pick |" in as_markdown_page(evaluations)


def test_differences_are_told_by_task_and_for_all():
    pick, stack, every = compare(EVALUATIONS["joint"], EVALUATIONS["alone"])
    assert (pick.task, pick.first, pick.second) == ("pick", (9, 10), (2, 10)) and stack.task == "stack"
    assert (every.task, every.first, every.second) == ("all", (18, 20), (4, 20))
    assert every.difference == pytest.approx(-0.7) and every.interval[1] < 0 and every.verdict == "worse"
    (_, _, same) = compare(EVALUATIONS["alone"], EVALUATIONS["alone_colour"])
    assert same.verdict == "inconclusive"


def test_tables_tell_shifts_and_differences():
    text = as_markdown_page(EVALUATIONS)
    assert "## widowx, tiny, validation seeds\n\n| shift | pick | stack | all |" in text
    assert "| in distribution | 9 of 10 | 9 of 10 | 18 of 20 |\n| colour | 5 of 10 | 5 of 10 | 10 of 20 |" in text
    assert "## checkpoint, against tiny (joint)\n" in text
    assert "| joint | 20 of 60 chunks refused (START_JUMP 20) |" in text
    assert "| alone | alone | 18 of 20 | 4 of 20 | −70 (−84 to −40) | worse |" in text
    assert "| alone_colour | stack | 2 of 10 | 1 of 10 | −10 (−42 to +24) | inconclusive |" in text


class Page(HTMLParser):
    """The content of a page; an element closed in the wrong order is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.words, self.attributes = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_needs_nothing_else():
    page = Page(report(EVALUATIONS))
    plots = {"tasks": 2, "shifts": 2, "steps": 2, "failures": 2, "latency": 1}  # two suites; two models; with a shift
    assert page.tags.count("svg") == sum(plots.values())
    assert all(link.startswith("#") for link in page.links) and not {"script", "img", "link"} & set(page.tags)
    words = " ".join(page.words)
    assert "18 of 20 (90 %, 70–97 %)" in words and "−70 (−84 to −40)" in words and "spl 0.50" in words
    assert "not <touched>" in words, "escaped"
    assert "20 of 60 chunks refused (START_JUMP 20)" in words
    assert report(EVALUATIONS) == report(EVALUATIONS)


def test_the_page_has_a_title_and_fits_a_phone():
    page = Page(report({"widowx": EVALUATIONS["joint"], "mobile_base": EVALUATIONS["base"]}))
    assert page.words.count("Evaluation of tiny on widowx, mobile_base") == 2, "of the window and of the page"
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.attributes
    assert title_of(EVALUATIONS) == "Evaluation of 2 policies on widowx, mobile_base"
    assert title_of({"a": evaluation(1, checkpoint=None)}) == "Evaluation of a policy on widowx"


def test_plots_and_pictures_are_described():
    page = Page(report(EVALUATIONS, pictures={"widowx": b"a picture"}))
    plots = [attributes for tag, attributes in page.attributes if tag == "svg"]
    assert all(plot["role"] == "img" for plot in plots)
    said = " ".join(plot["aria-label"] for plot in plots)
    for words in ("pick 9 of 10", "all 18 of 20", "not <touched> 2", "median 50 ms", "step 2000: pick 2 of 10"):
        assert words in said
    (picture,) = [attributes for tag, attributes in page.attributes if tag == "img"]
    assert "widowx" in picture["alt"] and picture["src"] == "data:image/png;base64,YSBwaWN0dXJl"


def test_cells_say_what_they_are_where_the_header_is_hidden():
    page = Page(report(EVALUATIONS))
    cells = [attributes for tag, attributes in page.attributes if tag == "td"]
    assert cells and all(cell["data-label"] for cell in cells)
    assert {"time [s]", "distance left [m]", "latency of a chunk [ms]"} <= {cell["data-label"] for cell in cells}


def test_rows_are_named_after_suites(tmp_path):
    joint, colour, base = (EVALUATIONS[name] for name in ("joint", "colour", "base"))
    files = [tmp_path / f"{name}.json" for name in ("one", "two", "three")]
    assert list(named(files, [joint, colour, base])) == ["widowx", "widowx, shift colour", "mobile_base"]
    assert list(named(files[:2], [joint, EVALUATIONS["alone"]])) == ["widowx (tiny)", "widowx (alone)"]
    assert list(named(files[:2], [joint, joint])) == ["widowx (one)", "widowx (two)"]


def test_metrics_have_their_units():
    rows = [EpisodeRow(9000, "go", "door", True, 1, 0, 1.0, 0.1, "success", 40.0, "go", "", {"ne": 0.4, "spl": 0.5})]
    text = as_markdown_page({"mobile_base": summarize("mobile_base", 9000, rows, **PLAIN)})
    assert "| ne 0.40 m, spl 0.50 |" in text


def test_test_and_validation_scenes_are_never_mixed():
    evaluations = {"seen": evaluation(18), "unseen": evaluation(12, seed=FIRST_TEST_SEED)}
    (found,) = comparisons(evaluations)
    assert (found.condition, found.first, found.values) == ("split", "seen", ("validation", "test"))
    shifted = {"seen": evaluation(18), "unseen": evaluation(12, seed=FIRST_TEST_SEED, shift="colour")}
    assert not comparisons(shifted), "they differ in two respects"
    text = as_markdown_page(evaluations)
    assert "| 9000–9019 (validation) | 18 of 20" in text and "| 20000–20019 (test) | 12 of 20" in text
    assert "seeds 20000–20019 (test)" in " ".join(Page(report(evaluations)).words)


def test_no_step_of_a_training_is_chosen_by_test_scenes():
    steps = {str(step): evaluation(step, step=step, checkpoint=f"step_{step}", seed=FIRST_TEST_SEED) for step in (4, 9)}
    assert "Success over training" not in report(steps)
    validated = {str(step): evaluation(step, step=step, checkpoint=f"step_{step}") for step in (4, 9)}
    assert "Success over training" in report(validated)


def test_training_curves_are_shown(tmp_path):
    rows = [{"step": i, "action": 1 / (i + 1), "held_out/tip": 0.1} for i in range(5)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(report({"joint": EVALUATIONS["joint"]}, [tmp_path]))
    assert page.tags.count("svg") == 4 and {"action", "tip", str(tmp_path)} <= {word.strip() for word in page.words}


def test_files_are_named_as_shortly_as_they_can_be_told_apart(tmp_path):
    files = [tmp_path / "a/widowx.json", tmp_path / "b/widowx.json"]
    assert names_of(files) == ["a/widowx", "b/widowx"] and names_of(files[:1]) == ["widowx"]
    with pytest.raises(ValueError, match="twice"):
        names_of([files[0], tmp_path / "b/../a/widowx.json"])


def test_what_is_no_evaluation_and_no_run_is_named(tmp_path):
    good, text, other = (tmp_path / name for name in ("good.json", "text.json", "other.json"))
    good.write_text(json.dumps(EVALUATIONS["joint"]))
    text.write_text("# a page")
    other.write_text('{"suite": "widowx"}')
    out = tmp_path / "report.html"
    for files, logs, message in (
        (
            [tmp_path / "none.json"],
            (),
            "none.json does not exist; `qwen-vla evaluate SUITE --json .* writes such a file",
        ),
        ([text], (), "text.json: not JSON"),
        ([good, other], (), "other.json: episodes: missing.*give a result of"),
        ([good], (tmp_path,), f"{re.escape(str(tmp_path))} is not the folder of a training run"),
        ([], (), "at least one"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            write_report(files, out, logs)
        assert not out.exists()
    write_report([good], out, markdown=tmp_path / "tables.md")
    assert out.read_text() == report({"widowx": EVALUATIONS["joint"]})
    assert (
        "| widowx | tiny | – | 9000–9019 (validation) | 18 of 20 (90 %, 70–97 %) | spl 0.50 |"
        in (tmp_path / "tables.md").read_text()
    )
