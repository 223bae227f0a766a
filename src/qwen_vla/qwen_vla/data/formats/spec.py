# SPDX-License-Identifier: Apache-2.0
"""Shared by all kinds of training data: base of their specifications, held-out splits, and files read by row."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from embodiment_descriptions import ActionLayout
from qwen_vla.data.samples import SourceContext
from qwen_vla.errors.error_text import as_line
from qwen_vla.model.normalization import HIGH, LOW, Quantiles
from qwen_vla.seeds import require_split

SPECIAL = "<|"  # starts every special token; in a text it could forge a turn or an image
SHOWN = 10  # bad rows listed in a message; the others are counted

Row = TypeVar("Row")
OnBadRows = Literal["refuse", "skip"]
log = logging.getLogger(__name__)


class DataError(ValueError):
    """Training data that cannot be used; the message names file and line, the fault, and the remedy.

    where, remedy: those parts of the message, if they are known separately; `what` is the rest.
    """

    def __init__(self, what: object = "", where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = str(what), where, remedy
        super().__init__(": ".join(filter(None, (where, self.what))) + (f"; {remedy}" if remedy else ""))


def clean_text(text: str) -> str:
    """The text; ValueError if it is empty or contains a special token."""
    if not text.strip():
        raise ValueError("the text is empty")
    if SPECIAL in text:
        raise ValueError(f"the text contains {SPECIAL!r}, which starts a special token: {text!r}")
    return text


Text = Annotated[str, AfterValidator(clean_text)]


class DataSpec(BaseModel):
    """Base of every entry of a recipe's `data`: strict, immutable, with its weight in the mixture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(default=1.0, gt=0, description="share of the samples, relative to the other entries")


class FileSpec(DataSpec):
    """Data in a user's JSON Lines file."""

    path: Path = Field(description="JSON Lines file: one JSON object per line; see docs/reference/data_formats.md")
    on_bad_rows: OnBadRows = Field(default="refuse", description="what to do with unusable rows; both report them")


def split(count: int, held_out_share: float, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Training indices and held-out indices: the last ones, at least one if any are requested.

    Raises:
        DataError: nothing would be left to train on; `what` names the data.
    """
    held_out = max(1, round(count * held_out_share)) if held_out_share else 0
    if held_out >= count:
        raise DataError(
            f"{what}: {count} in all, {held_out} held out, none left to train on; add data or lower held_out_share"
        )
    indices = np.arange(count)
    return indices[: count - held_out], indices[count - held_out :]


def check_steps(steps: int, context: SourceContext, what: str) -> None:
    """DataError if a source's chunks are longer than the model's action tensor."""
    horizon = context.config.horizon
    if context.trajectory_steps is None and steps > horizon:
        raise DataError(f"{what}: chunks of {steps} steps do not fit the model's horizon of {horizon}; use fewer")


def refuse_evaluation_scenes(seeds: Sequence[int] | None, path: object) -> None:
    """DataError if a dataset is recorded from scenes (first and past-last seed) that are reserved for evaluation."""
    if seeds:
        try:
            require_split("training", range(*seeds), "training")
        except ValueError as error:
            raise DataError(f"{path}: {error}", remedy="remove this dataset") from error


def read_rows(path: Path, parse: Callable[[dict, int], Row], on_bad_rows: OnBadRows) -> tuple[list[Row], list[str]]:
    """Parse every line of a JSON Lines file; blank lines are allowed.

    parse: turns one object and its line number into a row; ValueError (or OSError) if it is unusable.

    Returns:
        The rows, and one line of text per bad row: file, line number and fault.

    Raises:
        DataError: the file is missing or empty, or has bad rows and `on_bad_rows` is "refuse".
    """
    if not path.exists():
        raise DataError(f"{path}: no such file (relative to {Path.cwd()})")
    rows, bad = [], []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                rows.append(parse(_object(line), number))
            except (ValueError, OSError) as error:
                bad.append(f"{path}:{number}: {as_text(error)}")
    report(bad, on_bad_rows)
    if not rows:
        raise DataError(f"{path}: no usable row ({len(bad)} bad ones)" if bad else f"{path} is empty")
    return rows, bad


def report(bad: Sequence[str], on_bad_rows: OnBadRows) -> None:
    """Log the bad rows, or raise DataError with them."""
    if not bad:
        return
    listed = "\n".join(bad[:SHOWN]) + (f"\n… and {len(bad) - SHOWN} more" if len(bad) > SHOWN else "")
    if on_bad_rows == "refuse":
        raise DataError(f"{listed}\n{len(bad)} bad rows; repair them, or skip them with `on_bad_rows: skip`")
    log.warning("skipped %d bad rows:\n%s", len(bad), listed)


def as_text(error: Exception) -> str:
    """The error in one line; pydantic's errors with the place of every problem."""
    if isinstance(error, ValidationError):
        return "; ".join(_problem(problem) for problem in error.errors())
    return " ".join(as_line(error).split())


def quantiles(values: np.ndarray, valid: np.ndarray, channel_names: Sequence[str]) -> Quantiles:
    """q01 and q99 per channel over the valid values [..., c]; a channel without any is degenerate at 0."""
    values = np.where(valid, values, np.nan).reshape(-1, values.shape[-1])
    bounds = np.zeros((2, values.shape[1]))
    for channel, column in enumerate(values.T):
        column = column[~np.isnan(column)]
        if len(column):
            bounds[:, channel] = np.quantile(column, [LOW, HIGH])
    return Quantiles(bounds[0], bounds[1], tuple(channel_names))


def kept_statistics(context: SourceContext, name: str, channel_names: Sequence[str]) -> Quantiles | None:
    """The statistics of this name that are kept from the checkpoint to start from; None: they are to be computed.

    Raises:
        DataError: they are of other channels, or in another order.
    """
    known, own = context.normalization.get(name), tuple(channel_names)
    if known is not None and (known.channel_names or own) != own:
        raise DataError(
            f"the checkpoint's statistics {name!r} are of the channels {' '.join(known.channel_names)}, this data has "
            f"{' '.join(own)}; remove `normalization: {{{name}: keep}}`, or give the data another name with "
            "`statistics`"
        )
    return known


def opened_wide(found: Quantiles, layout: ActionLayout) -> Quantiles:
    """Statistics with the known range of grippers, 0 closed … 1 open: one that rarely closes has another q01."""
    low, high = found.q01.copy(), found.q99.copy()
    low[layout.grippers], high[layout.grippers] = 0.0, 1.0
    return Quantiles(low, high, found.channel_names)


def file_hash(path: Path) -> str:
    """First 16 digits of the SHA-256 of a file's content, for training.json."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _object(line: bytes) -> dict:
    value = json.loads(line.decode("utf-8-sig"))  # some editors begin a file with a mark
    if not isinstance(value, dict):
        raise ValueError(f"a line must be a JSON object, not {type(value).__name__}")
    return value


def _problem(problem: Mapping[str, Any]) -> str:
    place = ".".join(map(str, problem["loc"]))
    text = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
