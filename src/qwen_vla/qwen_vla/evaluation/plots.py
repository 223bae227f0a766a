# SPDX-License-Identifier: Apache-2.0
"""Plots of evaluations, as SVG for embedding in a page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwen_vla.evaluation.comparison import Evaluations
from qwen_vla.evaluation.tables import UNSHIFTED

COLORS = ("#2563a8", "#d9761c", "#3c8d4b", "#b03a48", "#7a5aa6", "#7d6246", "#c264a0", "#6b7280")
SUCCESS_COLOR, REST_COLOR = "#a9cdb1", "#6b7280"
WIDTH = 4.8  # [in] narrow, so that text is still read on a phone, whose screen it fills
LEGEND_LINE, LETTER = 0.5, 0.072  # [in] width of a line in a legend, with its margins, and of a letter
ROW, FRAME = 0.3, 0.9  # [in] height of a row of a plot, and of its frame
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 10,
}


def as_svg(figure: Figure) -> str:
    """A figure as SVG, reproducible, with text kept as text."""
    with matplotlib.rc_context(SETTINGS):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    svg = buffer.getvalue()
    return re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])  # names of groups would be duplicated in a page


def success_by_task(evaluations: Evaluations) -> Figure:
    """Rates with 95 % intervals of evaluations of one suite: a row per task, a color per evaluation."""
    tasks = list(dict.fromkeys(task for summary in evaluations.values() for task in summary["tasks"]))
    lines = [*tasks, "all"] if len(tasks) > 1 else tasks
    figure, axes = _figure(len(lines) * max(1, len(evaluations)) * 0.8)
    for number, (name, summary) in enumerate(evaluations.items()):
        places, found = [], []
        for line, task in enumerate(lines):
            success = summary if task == "all" else summary["tasks"].get(task)
            if success is not None:
                places.append(line + _offset(number, len(evaluations)))
                found.append(success)
        _draw_rates(axes, places, found, _color(number), name)
    _finish_rates(axes, lines)
    if len(evaluations) > 1:
        _legend_below(figure, axes)
    return figure


def success_by_shift(evaluations: Evaluations) -> Figure:
    """Rates with 95 % intervals, a row per evaluation; the dashed line is at the first, in distribution."""
    figure, axes = _figure(len(evaluations))
    first, *_ = evaluations.values()
    _draw_rates(axes, range(len(evaluations)), list(evaluations.values()), _color(0), None)
    axes.axvline(100 * first["success_rate"], color=REST_COLOR, linewidth=1, linestyle="--", zorder=0)
    _finish_rates(axes, [summary.get("shift") or UNSHIFTED for summary in evaluations.values()])
    return figure


def success_by_step(evaluations: Evaluations) -> Figure:
    """Rates with 95 % intervals of evaluations of one suite over the training steps of their checkpoints, by task."""
    figure, axes = _figure(9)
    summaries = sorted(evaluations.values(), key=lambda summary: summary["step"])
    tasks = list(dict.fromkeys(task for summary in summaries for task in summary["tasks"]))
    for number, task in enumerate(tasks):
        have = [summary for summary in summaries if task in summary["tasks"]]
        rates = np.array([summary["tasks"][task]["success_rate"] for summary in have])
        ends = np.array([summary["tasks"][task]["wilson_95"] for summary in have])
        steps = [summary["step"] for summary in have]
        axes.plot(steps, 100 * rates, "o-", color=_color(number), label=task, markersize=4)
        axes.fill_between(steps, 100 * ends[:, 0], 100 * ends[:, 1], color=_color(number), alpha=0.12, linewidth=0)
    axes.set(xlabel="training step", ylabel="success [%]", ylim=(-2, 102))
    axes.grid(alpha=0.3)
    _legend_below(figure, axes)
    return figure


def failures(evaluations: Evaluations) -> Figure:
    """Outcomes of the episodes of each evaluation: success and the kinds of failure, as percentages."""
    figure, axes = _figure(len(evaluations))
    kinds = sorted({kind for summary in evaluations.values() for kind in summary["failures"]})
    left = np.zeros(len(evaluations))
    for number, kind in enumerate(("success", *kinds)):
        counts = [s["successes"] if kind == "success" else s["failures"].get(kind, 0) for s in evaluations.values()]
        shares = 100 * np.array(counts) / [max(1, summary["episodes"]) for summary in evaluations.values()]
        color = SUCCESS_COLOR if kind == "success" else _color(number - 1)
        bars = axes.barh(range(len(evaluations)), shares, left=left, color=color, label=kind, height=0.7)
        said = [str(count) if share > 3 else "" for count, share in zip(counts, shares, strict=True)]
        axes.bar_label(bars, said, label_type="center", fontsize=9, color="black" if kind == "success" else "white")
        left += shares
    axes.set(xlabel="episodes [%], with their number", xlim=(0, 100))
    _name_lines(axes, list(evaluations))
    _legend_below(figure, axes)
    return figure


def latency(evaluations: Evaluations) -> Figure:
    """Wall time of a chunk: the median of each episode as a dot, quartiles as a box, whiskers at 5 and 95 %."""
    figure, axes = _figure(len(evaluations))
    values = [[row["latency_ms_p50"] for row in summary["rows"]] for summary in evaluations.values()]
    axes.boxplot(values, positions=range(len(values)), orientation="horizontal", widths=0.5, whis=(5, 95),
                 showfliers=False, medianprops={"color": _color(1)})  # fmt: skip
    for line, series in enumerate(values):
        spread = 0.18 * np.sin(7 * np.arange(len(series)))  # so that dots do not overlap
        axes.plot(series, line + spread, ".", color=_color(0), alpha=0.4, markersize=4)
    axes.set(xlabel="wall time of a chunk, median of an episode [ms]", xlim=(0, None))
    axes.grid(alpha=0.3, axis="x")
    _name_lines(axes, list(evaluations))
    return figure


def rates_as_text(evaluations: Evaluations) -> str:
    """What plots of success show, as text: successes of each evaluation by task."""
    counts = {name: {**summary["tasks"], "all": summary} for name, summary in evaluations.items()}
    return "; ".join(
        f"{name}: {', '.join(f'{task} {_share(success)}' for task, success in tasks.items())}"
        for name, tasks in counts.items()
    )


def endings_as_text(evaluations: Evaluations) -> str:
    """What `failures` shows, as text."""
    endings = {name: {"success": summary["successes"], **summary["failures"]} for name, summary in evaluations.items()}
    return "; ".join(
        f"{name}: {', '.join(f'{kind} {count}' for kind, count in kinds.items())}" for name, kinds in endings.items()
    )


def latency_as_text(evaluations: Evaluations) -> str:
    """What `latency` shows, as text."""
    return "; ".join(f"{name}: median {summary['latency_ms_p50']:.0f} ms" for name, summary in evaluations.items())


def _share(success: Mapping[str, Any]) -> str:
    return f"{success['successes']} of {success['episodes']}"


def _figure(lines: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, FRAME + ROW * lines))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _offset(number: int, count: int) -> float:
    """Offset within a row of the marks of one of several evaluations."""
    return (number - (count - 1) / 2) * 0.75 / max(1, count)


def _draw_rates(
    axes: Axes, places: Sequence[float], found: Sequence[Mapping[str, Any]], color: str, label: str | None
) -> None:
    rates = 100 * np.array([success["success_rate"] for success in found])
    ends = 100 * np.array([success["wilson_95"] for success in found]).reshape(-1, 2)
    errors = np.maximum(0, [rates - ends[:, 0], ends[:, 1] - rates])
    axes.errorbar(
        rates, places, xerr=errors, fmt="o", color=color, label=label, markersize=5, elinewidth=1.6, capsize=3
    )
    for place, success in zip(places, found, strict=True):
        text = f"{success['successes']}/{success['episodes']}"
        axes.text(103, place, text, color=color, va="center", fontsize=9)


def _finish_rates(axes: Axes, lines: Sequence[str]) -> None:
    axes.set(xlabel="success [%], 95 % interval", xlim=(-2, 102))
    axes.grid(alpha=0.3, axis="x")
    _name_lines(axes, lines)


def _name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a plot from top to bottom."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _legend_below(figure: Figure, axes: Axes) -> None:
    gap = 0.55 / figure.get_figheight()  # [in] for the label of the axis
    longest = max(len(str(label)) for label in axes.get_legend_handles_labels()[1])
    columns = max(1, min(3, int(WIDTH / (LEGEND_LINE + LETTER * longest))))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -gap), ncols=columns, frameon=False, fontsize=9)
