"""`qwen-vla report`: evaluations side by side on one page, with plots, comparisons, failures and training curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_vla.evaluation import plots
from qwen_vla.evaluation.comparison import Comparison, Difference, Evaluations, alike_but_for, comparisons
from qwen_vla.evaluation.page import Cell, figure, folded, heading, note, page, table
from qwen_vla.evaluation.summary import (
    EpisodeRow,
    conditions_in_words,
    mean_metrics,
    rate_in_words,
    read_summary,
    rows_of,
)
from qwen_vla.output_files import complete_or_absent
from qwen_vla.training.log import LOG_FILE, read_log

TITLE = "Evaluation"
DIFFERENCE_HEADER = ("reference", "here", "difference, 95 % interval", "")
MOODS = {"better": "good", "worse": "bad"}


def write_report(files: Sequence[Path], out: Path, train_logs: Sequence[Path] = ()) -> None:
    """Write the page. ValueError or FileNotFoundError names a file or folder that is not what it should be."""
    if not files:
        raise ValueError("name at least one result of `qwen-vla evaluate --json`")
    for folder in train_logs:
        if not (folder / LOG_FILE).is_file():
            raise FileNotFoundError(f"{folder / LOG_FILE} is missing: {folder} is no folder of a training run")
    evaluations = dict(zip(names_of(files), map(read_summary, files), strict=True))
    with complete_or_absent(out) as temporary:
        temporary.write_text(report(evaluations, train_logs), encoding="utf-8")


def report(evaluations: Evaluations, train_logs: Sequence[Path] = ()) -> str:
    """The page as HTML."""
    parts = [heading(TITLE, 1), _overview(evaluations), *_tasks(evaluations), *_shifts(evaluations)]
    parts += [*_steps(evaluations), *_comparisons(evaluations), *_failures(evaluations), *_latency(evaluations)]
    return page(TITLE, [*parts, *_curves(train_logs), *_episodes(evaluations)])


def names_of(files: Sequence[Path]) -> list[str]:
    """A short, unique name for each file: as much of the end of its path as is needed."""
    whole = [file.resolve().with_suffix("").parts for file in files]
    if len(set(whole)) < len(whole):
        raise ValueError("the same file is named twice")
    for length in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("whole paths are unique")


def _overview(evaluations: Evaluations) -> str:
    rows = []
    for name, summary in evaluations.items():
        metrics = ", ".join(f"{key} {value:.2f}" for key, value in mean_metrics(rows_of(summary)).items())
        last = summary["seed"] + summary["episodes"] - 1
        facts = (summary["suite"], summary.get("checkpoint", "–"), conditions_in_words(summary))
        rows.append((name, *facts, f"{summary['seed']}–{last}", rate_in_words(summary), metrics or "–"))
    header = ("evaluation", "suite", "checkpoint", "unusual", "seeds", "success (rate, 95 % interval)", "metrics, mean")
    return table(header, rows)


def _tasks(evaluations: Evaluations) -> Iterator[str]:
    yield heading("Success by task")
    for suite, group in _by_suite(evaluations).items():
        unshifted = {name: summary for name, summary in group.items() if not summary.get("shift")}
        svg = plots.as_svg(plots.success_by_task(unshifted or group))
        yield figure(svg, f"{suite}; bars are 95 % intervals (Wilson)")


def _shifts(evaluations: Evaluations) -> Iterator[str]:
    groups = [group for group in alike_but_for("shift", evaluations) if any(s.get("shift") for s in group.values())]
    if groups:
        yield heading("Success under shift")
    for group in groups:
        plain_first = dict(sorted(group.items(), key=lambda item: bool(item[1].get("shift"))))
        first, *_ = plain_first.values()
        caption = f"{first['suite']}, {first.get('checkpoint', '')}; the dashed line is the first row's rate"
        yield figure(plots.as_svg(plots.success_by_shift(plain_first)), caption)
        tasks = list(dict.fromkeys(task for summary in group.values() for task in summary["tasks"]))
        yield table(("shift", *tasks, "all"), [_shift_row(summary, tasks) for summary in plain_first.values()])


def _shift_row(summary: Mapping[str, Any], tasks: Sequence[str]) -> Sequence[str]:
    shares = [_counts(summary["tasks"][task]) if task in summary["tasks"] else "–" for task in tasks]
    return summary.get("shift") or plots.UNSHIFTED, *shares, _counts(summary)


def _counts(success: Mapping[str, Any]) -> str:
    return f"{success['successes']} of {success['episodes']}"


def _steps(evaluations: Evaluations) -> Iterator[str]:
    groups = [
        group
        for group in alike_but_for("checkpoint", evaluations)
        if len({s.get("step") for s in group.values() if s.get("step") is not None}) > 1
    ]
    if groups:
        yield heading("Success over training")
    for group in groups:
        known = {name: summary for name, summary in group.items() if summary.get("step") is not None}
        first, *_ = known.values()
        caption = f"{first['suite']}, {conditions_in_words(first)}; bands are 95 % intervals".replace(", –", "")
        yield figure(plots.as_svg(plots.success_by_step(known)), caption)


def _comparisons(evaluations: Evaluations) -> Iterator[str]:
    found = comparisons(evaluations)
    if not found:
        return
    yield heading("Differences")
    yield note(
        "Pairs that differ in one condition. Difference of the second rate from the first in percentage points, with "
        "its 95 % interval (Newcombe's score method for independent samples)."
    )
    for reference, group in _by_reference(found).items():
        _, condition = reference
        yield heading(f"{condition.replace('_', ' ')}, against {_value(group[0].values[0])} ({group[0].first})", 3)
        rows = [(comparison.second, _value(comparison.values[1])) for comparison in group]
        overall = [_difference_cells(comparison.differences[-1]) for comparison in group]
        yield table(("evaluation", "value", *DIFFERENCE_HEADER), [(*a, *b) for a, b in zip(rows, overall, strict=True)])
        if any(len(comparison.differences) > 1 for comparison in group):
            yield folded("by task", table(("evaluation", "task", *DIFFERENCE_HEADER), _rows_by_task(group)))


def _by_reference(found: Sequence[Comparison]) -> Mapping[tuple[str, str], list[Comparison]]:
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in found:
        groups.setdefault((comparison.first, comparison.condition), []).append(comparison)
    return groups


def _rows_by_task(group: Sequence[Comparison]) -> Iterator[Sequence[str]]:
    for comparison in group:
        for difference in comparison.differences[:-1]:
            yield comparison.second, difference.task, *_difference_cells(difference)


def _value(value: Any) -> str:
    """A condition's value in words."""
    return {None: "none", False: "off", True: "on"}.get(value, str(value))


def _difference_cells(difference: Difference) -> Sequence[str]:
    points = [f"{100 * value:+.0f}".replace("-", "−") for value in (difference.difference, *difference.interval)]
    counts = [f"{successes} of {episodes}" for successes, episodes in (difference.first, difference.second)]
    verdict = Cell(difference.verdict, MOODS.get(difference.verdict, "note"))
    return *counts, f"{points[0]} ({points[1]} to {points[2]})", verdict


def _failures(evaluations: Evaluations) -> Iterator[str]:
    yield heading("How episodes ended")
    for suite, group in _by_suite(evaluations).items():
        yield figure(plots.as_svg(plots.failures(group)), f"{suite}; failures by how far they got")


def _latency(evaluations: Evaluations) -> Iterator[str]:
    yield heading("Latency")
    caption = "box: quartiles; whiskers: 5 and 95 %. Parallel workers and other work on the machine are in it"
    yield figure(plots.as_svg(plots.latency(evaluations)), caption)


def _curves(train_logs: Sequence[Path]) -> Iterator[str]:
    if train_logs:
        yield heading("Training")
    for folder in train_logs:
        rows = read_log(folder)
        if any("success" in row for row in rows):
            from qwen_vla.training.reinforcement.curve import curve_figure
        else:
            from qwen_vla.training.curve import curve_figure

        yield figure(plots.as_svg(curve_figure(rows)), str(folder))


def _episodes(evaluations: Evaluations) -> Iterator[str]:
    yield heading("Episodes")
    header = ("seed", "task", "sentence", "", "how it ended", "s", "chunks", "refused", "distance [m]", "ms")
    for name, summary in evaluations.items():
        yield folded(f"{name}: {rate_in_words(summary)}", table(header, map(_episode_row, rows_of(summary))))


def _episode_row(row: EpisodeRow) -> Sequence[object]:
    verdict = Cell("success", "good") if row.success else Cell(row.category, "bad")
    figures = (f"{row.seconds:.1f}", row.chunks, row.refused, f"{row.distance:.3f}", f"{row.latency_ms_p50:.0f}")
    return row.seed, row.task, row.instruction, verdict, row.ended, *figures


def _by_suite(evaluations: Evaluations) -> Mapping[str, dict[str, Mapping[str, Any]]]:
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, summary in evaluations.items():
        groups.setdefault(summary["suite"], {})[name] = summary
    return groups
