# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/results.md and of the benchmarks' model cards, and the README's sentence, from docs/results.

`scripts/generate_docs.py` writes each between its two markers; the rest of the pages is written by hand.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_vla.evaluation.summary import rate_as_text, read_summary
from qwen_vla.evaluation.tables import markdown_table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # of the benchmarks

import measure_results  # noqa: E402

from benchmarks.public.libero.benchmark import LIBERO  # noqa: E402
from benchmarks.public.metaworld.benchmark import METAWORLD  # noqa: E402
from benchmarks.public.protocol.benchmark import Benchmark  # noqa: E402
from benchmarks.public.simpler_widowx.benchmark import SIMPLER_WIDOWX  # noqa: E402

RESULTS = ROOT / "docs/results"
SUITES = {"widowx": "WidowX", "aloha": "ALOHA", "mobile_base": "mobile base"}
BENCHMARKS = {"Simpler-WidowX": SIMPLER_WIDOWX, "LIBERO": LIBERO, "Meta-World MT50": METAWORLD}
NONE = "–"  # not measured
# In a card's model-index: name of a dataset, value, and ends of the interval of its success rate.
MEASURED = re.compile(
    r"(?P<before>\n      name: (?P<name>[^\n]*)\n(?:      .*\n|    metrics:\n|    - .*\n)*?      value: )[\d.]+"
    r"(?P<between>\n      name: success rate \(95 % interval )[\d.]+ to [\d.]+"
)


def with_results(page: str) -> str:
    """The page with its tables made again; ValueError for a missing marker."""
    for name, text in (("suites", suites()), ("benchmarks", benchmarks()), ("paper", paper())):
        page = with_block(page, name, text)
    return page


def with_success(readme: str) -> str:
    """The README with its sentence about success made again; ValueError for a missing marker."""
    rates = [f"{robot} {measure_results.rate(_read(f'{name}.json'))}" for name, robot in SUITES.items()]
    said = f"[How well it works](docs/results.md), in scenes that were not used before: {', '.join(rates)}."
    return with_block(readme, "success", said)


def with_figures(card: str, benchmark: Benchmark) -> str:
    """The model card of a benchmark with its table and model-index made again; ValueError for a missing marker."""
    if (RESULTS / f"{benchmark.name}.json").exists():
        card = _with_index(card, _read(f"{benchmark.name}.json"))
    files = (f"{benchmark.name}.json", f"{benchmark.name}_validation.json")
    rows = [row for file in files if (RESULTS / file).exists() for row in _card_rows(benchmark, _read(file))]
    return with_block(card, "figures", markdown_table(("start states", "success (95 % interval)", "by task"), rows))


def _with_index(card: str, official: Mapping[str, Any]) -> str:
    """The card with the rates of its model-index made again: of the group that a dataset is named after, or of all."""

    def measured(found: re.Match[str]) -> str:
        rate = official["groups"].get(found["name"].split(",")[0], official)
        low, high = rate["wilson_95"]
        return f"{found['before']}{rate['success_rate']:.2f}{found['between']}{low:.2f} to {high:.2f}"

    return MEASURED.sub(measured, card)


def with_block(page: str, name: str, text: str) -> str:
    """The page with the text between the markers of that name; ValueError if they are missing."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- end of {name} -->"
    if begin not in page or end not in page:
        raise ValueError(f"the page must contain the lines {begin!r} and {end!r}")
    before, rest = page.split(begin, 1)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def suites() -> str:
    """Success in the test scenes of our own suites, in process and over ROS."""
    files = [*(f"{name}.json" for name in SUITES), *(f"{name}_over_ros.json" for name in SUITES)]
    header = markdown_table(("", "seeds", *(f"`{name}`" for name in SUITES)), [])
    return "\n".join([header, *measure_results.rows([read_summary(RESULTS / file) for file in files])])


def benchmarks() -> str:
    """A row for each public benchmark: score of the model and rate of the expert, beside those of others."""
    header = ("", "our model", "the same on validation states", "our scripted expert, on these", "published, by others")
    rows = [(title, *_cells(benchmark)) for title, benchmark in BENCHMARKS.items()]
    protocols = [f"- {title}: {benchmark.protocol}." for title, benchmark in BENCHMARKS.items()]
    return "\n".join([markdown_table(header, rows), "", *protocols, *_by_group()])


def paper() -> str:
    """The paper's own figures beside ours, with what keeps them from being comparable."""
    table = _read("paper.json")["rows"]
    rows = [(row["benchmark"], row["paper"], _ours(row.get("ours")), row["difference"]) for row in table]
    return markdown_table(("%", "Qwen-VLA (paper)", "ours", "why the two are not comparable"), rows)


def _cells(benchmark: Benchmark) -> Iterator[str]:
    yield _score(benchmark, f"{benchmark.name}.json")
    yield _score(benchmark, f"{benchmark.name}_validation.json")
    yield measure_results.rate(_read(f"{benchmark.name}_expert.json"))
    yield ", ".join(f"{name} {value:g}" for name, value in benchmark.published.items())


def _score(benchmark: Benchmark, file: str) -> str:
    if not (RESULTS / file).exists():
        return NONE
    result = _read(file)
    tasks, known = len(result["tasks"]), len(benchmark.tasks)
    part = f" on {tasks} of the {known} tasks" if tasks < known else ""
    return f"**{100 * result['score']:.1f}**{part}; {measure_results.rate(result)}"


def _card_rows(benchmark: Benchmark, result: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """A row for all tasks, and one for each group of several; the best tasks first."""
    groups = {name: members for name, members in benchmark.groups.items() if len(members) > 1}
    yield result["starts"], rate_as_text(result), "" if groups else _counts(result, benchmark.tasks)
    for name, members in groups.items():
        if name in result["groups"]:
            title = f"{result['starts']}, {name.replace('_', ' ')}"
            yield title, rate_as_text(result["groups"][name]), _counts(result, members)


def _counts(result: Mapping[str, Any], members: Iterable[str]) -> str:
    tasks = {task: result["tasks"][task] for task in members if task in result["tasks"]}
    short = _without_what_is_common(list(tasks))
    best = sorted(tasks.items(), key=lambda item: -item[1]["success_rate"])
    return ", ".join(f"{short[task]} {rate['successes']}/{rate['episodes']}" for task, rate in best)


def _without_what_is_common(tasks: Sequence[str]) -> dict[str, str]:
    """Names without the words with which all of them begin and end."""
    words = [task.split("_") for task in tasks]
    first = len(os.path.commonprefix(words)) if len(tasks) > 1 else 0
    last = len(os.path.commonprefix([each[:0:-1] for each in words])) if len(tasks) > 1 else 0
    return {task: " ".join(each[first : len(each) - last]) for task, each in zip(tasks, words, strict=True)}


def _by_group() -> Iterator[str]:
    """How the models did by group, how they failed, and what they were trained on, where that was measured."""
    for title, benchmark in BENCHMARKS.items():
        for file in (f"{benchmark.name}.json", f"{benchmark.name}_validation.json"):
            if (RESULTS / file).exists():
                yield f"- {title}, {_conditions(_read(file))}"


def _conditions(result: Mapping[str, Any]) -> str:
    groups = ", ".join(f"{name.replace('_', ' ')} {measure_results.rate(r)}" for name, r in result["groups"].items())
    failures = "; ".join(f"{kind}: {count}" for kind, count in result["failures"].items())
    part = "" if result["complete"] or result["starts"] != "official" else ", a part of the protocol"
    rows = result["executed_rows"] or "as many as the policy says"
    return (
        f"{result['starts']} start states{part}, {result['episodes']} episodes, rows of a chunk executed: {rows}; "
        f"{groups}. Failures: {failures}. Trained on {result['trained_on']}."
    )


def _ours(figure: Mapping[str, str] | None) -> str:
    if figure is None or not (RESULTS / figure["file"]).exists():
        return NONE
    return f"{100 * _read(figure['file'])[figure['figure']]:.1f}"


def _read(file: str) -> Any:
    return json.loads((RESULTS / file).read_text())
