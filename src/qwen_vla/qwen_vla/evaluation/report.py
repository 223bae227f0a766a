# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla report`: a page of evaluations, with plots, comparisons, failures and training curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qwen_vla.evaluation import plots, tables
from qwen_vla.evaluation.comparison import Evaluations, alike_but_for
from qwen_vla.evaluation.page import Cell, figure, folded, heading, note, page, robots, table
from qwen_vla.evaluation.summary import (
    EpisodeRow,
    conditions_as_text,
    rate_as_text,
    read_summary,
    rows_of,
    seeds_as_text,
)
from qwen_vla.output_files import write_text
from qwen_vla.output_paths import in_markdown
from qwen_vla.suites import portrait
from qwen_vla.training.progress.log import LOG_FILE, read_log

MAKER = "qwen-vla report"  # as in `output_paths`
MOODS = {"better": "good", "worse": "bad", "inconclusive": "note"}


def write_report(
    files: Sequence[Path],
    out: Path,
    train_logs: Sequence[Path] = (),
    markdown: Path | None = None,
    pictures: bool = False,
) -> None:
    """Write the page and, if requested, its tables as Markdown; pictures: of the robots, rendered by their simulators.

    ValueError or FileNotFoundError names an invalid file or folder.
    """
    if not files:
        raise ValueError("name at least one result of `qwen-vla evaluate --json`")
    for folder in train_logs:
        if not (folder / LOG_FILE).is_file():
            raise FileNotFoundError(f"{folder / LOG_FILE} is missing: {folder} is not the folder of a training run")
    evaluations = named(files, list(map(read_summary, files)))
    suites = _by_suite(evaluations) if pictures else ()
    shown = {suite: _as_png(image) for suite in suites if (image := portrait(suite)) is not None}
    write_text(out, report(evaluations, train_logs, shown))
    if markdown:
        write_text(markdown, in_markdown(MAKER, tables.as_markdown_page(evaluations)))


def report(
    evaluations: Evaluations, train_logs: Sequence[Path] = (), pictures: Mapping[str, bytes] | None = None
) -> str:
    """The page as HTML; pictures: of the robots (PNG) by their suite."""
    title = title_of(evaluations)
    parts = [heading(title, 1), robots(pictures or {}), _table(tables.overview(evaluations)), *_tasks(evaluations)]
    parts += [*_shifts(evaluations), *_steps(evaluations), *_differences(evaluations), *_failures(evaluations)]
    parts += [*_latency(evaluations), *_curves(train_logs), *_episodes(evaluations)]
    return page(title, parts, MAKER)


def title_of(evaluations: Evaluations) -> str:
    """What was evaluated: the policies, if they are few, and the suites."""
    policies = list(dict.fromkeys(str(s["checkpoint"]) for s in evaluations.values() if s.get("checkpoint")))
    what = policies[0] if len(policies) == 1 else f"{len(policies)} policies" if policies else "a policy"
    return f"Evaluation of {what} on {', '.join(_by_suite(evaluations))}"


def named(files: Sequence[Path], summaries: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The summaries, named by suite and conditions, and by checkpoint or file where these are not unique."""
    plain = [", ".join(filter(None, (s["suite"], conditions_as_text(s).strip("–")))) for s in summaries]
    checkpoints = [f"{name} ({s.get('checkpoint')})" for name, s in zip(plain, summaries, strict=True)]
    by_file = [f"{name} ({file})" for name, file in zip(plain, names_of(files), strict=True)]
    unique = next(names for names in (plain, checkpoints, by_file) if len(set(names)) == len(names))
    return dict(zip(unique, summaries, strict=True))


def names_of(files: Sequence[Path]) -> list[str]:
    """A short, unique name for each file: as many trailing parts of its path as needed."""
    whole = [file.resolve().with_suffix("").parts for file in files]
    if len(set(whole)) < len(whole):
        raise ValueError("the same file is given twice")
    length = 1
    while len({parts[-length:] for parts in whole}) < len(whole):
        length += 1
    return ["/".join(parts[-length:]) for parts in whole]


def _tasks(evaluations: Evaluations) -> Iterator[str]:
    yield heading("Success by task")
    for suite, group in _by_suite(evaluations).items():
        unshifted = {name: summary for name, summary in group.items() if not summary.get("shift")}
        shown = unshifted or group
        svg, text = plots.as_svg(plots.success_by_task(shown)), f"Success by task: {plots.rates_as_text(shown)}"
        yield figure(svg, f"{suite}; bars are 95 % intervals (Wilson)", text)


def _shifts(evaluations: Evaluations) -> Iterator[str]:
    groups = tables.shift_groups(evaluations)
    if groups:
        yield heading("Success under shift")
    for group, counts in zip(groups, tables.by_shift(evaluations), strict=True):
        caption, text = f"{counts.title}; the dashed line is the first rate", plots.rates_as_text(group)
        yield figure(plots.as_svg(plots.success_by_shift(group)), caption, f"Success under shift: {text}")
        yield _table(counts)


def _steps(evaluations: Evaluations) -> Iterator[str]:
    """Only on validation scenes: test scenes cannot measure a step that was selected on them."""
    trained = {name: summary for name, summary in evaluations.items() if summary.get("step") is not None}
    known = {name: summary for name, summary in trained.items() if summary["split"] == "validation"}
    groups = [g for g in alike_but_for("checkpoint", known) if len({s["step"] for s in g.values()}) > 1]
    if groups:
        yield heading("Success over training")
    for group in groups:
        first, *_ = group.values()
        facts = f"{first['suite']}, {conditions_as_text(first)}".removesuffix(", –")
        caption = f"{facts}, validation seeds; bands are 95 % intervals"
        text = plots.rates_as_text({f"step {summary['step']}": summary for summary in group.values()})
        yield figure(plots.as_svg(plots.success_by_step(group)), caption, f"Success over training: {text}")


def _differences(evaluations: Evaluations) -> Iterator[str]:
    found = list(tables.differences(evaluations))
    if found:
        yield heading("Differences")
        yield note(
            "Pairs that differ in one condition. Difference of the rate from the reference in percentage points, with "
            "its 95 % interval (Newcombe's score method for independent samples)."
        )
    for overall, *by_task in found:
        yield heading(overall.title, 3) + _table(overall)
        yield from (folded("by task", _table(one)) for one in by_task)


def _failures(evaluations: Evaluations) -> Iterator[str]:
    yield heading("How episodes ended")
    for suite, group in _by_suite(evaluations).items():
        text = f"How episodes ended: {plots.endings_as_text(group)}"
        yield figure(plots.as_svg(plots.failures(group)), f"{suite}; failures by how far they got", text)
    refused = tables.refusals(evaluations)
    yield heading(refused.title) + _table(refused)


def _latency(evaluations: Evaluations) -> Iterator[str]:
    yield heading("Latency")
    caption = "box: quartiles; whiskers: 5 and 95 %. Includes the load of parallel workers and other processes"
    text = f"Latency of a chunk: {plots.latency_as_text(evaluations)}"
    yield figure(plots.as_svg(plots.latency(evaluations)), caption, text)


def _curves(train_logs: Sequence[Path]) -> Iterator[str]:
    if train_logs:
        yield heading("Training")
    for folder in train_logs:
        rows = read_log(folder)
        if any("success" in row for row in rows):
            from qwen_vla.training.reinforcement.curve import curve_figure
        else:
            from qwen_vla.training.progress.curve import curve_figure

        yield figure(plots.as_svg(curve_figure(rows)), str(folder), f"Curves of the training in {folder}")


def _episodes(evaluations: Evaluations) -> Iterator[str]:
    yield heading("Episodes")
    header = ("seed", "task", "instruction", "result", "ended by", "time [s]", "chunks", "refused", "distance left [m]")
    header = (*header, "latency of a chunk [ms]")
    for name, summary in evaluations.items():
        title = f"{name}: {rate_as_text(summary)}, seeds {seeds_as_text(summary)}"
        yield folded(title, table(header, map(_episode_row, rows_of(summary))))


def _episode_row(row: EpisodeRow) -> Sequence[object]:
    verdict = Cell("success", "good") if row.success else Cell(row.category, "bad")
    figures = (f"{row.seconds:.1f}", row.chunks, row.refused, f"{row.distance:.3f}", f"{row.latency_ms_p50:.0f}")
    return row.seed, row.task, row.instruction, verdict, row.ended, *figures


def _as_png(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _table(plain: tables.Table) -> str:
    """In HTML, with colored verdicts."""
    moods = [[Cell(cell, MOODS[cell]) if cell in MOODS else cell for cell in row] for row in plain.rows]
    return table(plain.header, moods)


def _by_suite(evaluations: Evaluations) -> Mapping[str, dict[str, Mapping[str, Any]]]:
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, summary in evaluations.items():
        groups.setdefault(summary["suite"], {})[name] = summary
    return groups
