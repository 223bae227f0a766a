# SPDX-License-Identifier: Apache-2.0
"""Inspects any dataset: finds its kind, applies a recipe's entry, and draws a picture. The command line calls it.

Libraries that load slowly are imported only for the kinds that need them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwen_vla.data.formats.episodes import SourceOptions
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.inspection.findings import Findings
from qwen_vla.data.inspection.robot_findings import RobotInspection
from qwen_vla.data.robot.robot_dataset import RobotDataset

MAKER = "qwen-vla inspect"
LINES = (".jsonl", ".ndjson")


def inspect(
    path: Path,
    robot: str | None = None,
    recipe: Path | None = None,
    instruction: str | None = None,
    row: int | None = None,
    png: Path | None = None,
) -> Findings:
    """What is understood of a dataset; options as of `qwen-vla inspect`.

    Raises:
        ValueError: an option does not fit the dataset.
    """
    spec = _from_recipe(recipe, path) if recipe else None
    if isinstance(spec, RobotDataset) or (spec is None and path.suffix not in LINES):
        wanted = _robot_spec(spec or RobotDataset(path=str(path)), robot, instruction)
        inspection = RobotInspection(wanted, row)
        if png and inspection.recording:
            from qwen_vla.data.inspection.picture import draw

            draw(png, inspection.recording, inspection.findings.cameras, MAKER)
        return inspection.findings
    if robot or instruction or png:
        raise ValueError(f"{path}: --robot, --instruction and --png are for recordings of a robot")
    from qwen_vla.data.inspection.file_findings import inspect_file, spec_of

    return inspect_file(spec or spec_of(path), row)


def _from_recipe(recipe: Path, path: Path) -> Any:
    from qwen_vla.training.recipe_data import entry_of

    spec = entry_of(recipe, path)
    if spec.kind in ("motions", "questions"):
        raise DataError(f"{recipe}: data of kind {spec.kind} are ours; only those of others are inspected")
    return spec


def _robot_spec(spec: RobotDataset, robot: str | None, instruction: str | None) -> RobotDataset:
    changes: dict[str, Any] = {"robot": robot} if robot else {}
    if instruction:
        changes["bag"] = SourceOptions(**spec.bag.model_dump() | {"instruction": instruction})
    return spec.model_copy(update=changes)
