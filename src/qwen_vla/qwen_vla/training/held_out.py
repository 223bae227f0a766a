"""How good a run is on the samples that it never trains on, with its averaged weights."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from qwen_vla.data.samples import SampleSource
from qwen_vla.training.batches import Batch
from qwen_vla.training.grounding import GroundingTargets
from qwen_vla.training.run import Run, averaged

SAMPLES = 96  # of each source
EULER_STEPS = 4
POSITION = ("x", "y", "z")
MEASURED = 0.5  # share of a chunk at which positions are compared: about where the next chunk takes over


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Errors of sampled actions and of grounding [share of the image]; every process must call it.

    `action`: mean error of the normalised actions. `position_mm` and `gripper` [share of its travel]: of robots with
    such channels. Source by source under `held_out/<name>/` where there are several, and their mean.
    """
    rows: dict[str, dict] = {}
    with averaged(run), torch.random.fork_rng():
        torch.manual_seed(0)
        run.learner.eval()
        for source in run.sources:
            if len(source.held_out):
                batch = run.batches.held_out(source, SAMPLES).to(run.accelerator.device)
                found = run.wrapped(batch, EULER_STEPS)
                rows[source.name] = _grounding_errors(found, batch) | _action_errors(source, found, batch)
        run.learner.train()
    return {f"held_out/{key}": value for key, value in mean(list(rows.values())).items()}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key over the rows that have it."""
    keys = {key for row in rows for key in row}
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in sorted(keys)}


def _grounding_errors(found: dict[str, torch.Tensor], batch: Batch) -> dict[str, float]:
    if "points" not in found:
        return {}
    points, targets = found["points"], batch.grounding
    error = (points[..., :2] - targets.points[..., :2]).norm(dim=-1)
    cube, tip = targets.visible.unbind(-1)
    result = {}
    if bool(cube.any()):
        depth = (points - F.pad(targets.points, (0, 1)))[:, 0, 2]
        result["cube"] = error[:, 0][cube].mean().item()
        result["cube_median"] = error[:, 0][cube].median().item()
        result["cube_depth_m"] = depth[cube].abs().mean().item()
    if bool(tip.any()):
        result["tip"] = error[:, 1][tip].mean().item()
        result["opening"] = _opening_error(points, targets, tip)
    return result


def _opening_error(points: torch.Tensor, targets: GroundingTargets, tip: torch.Tensor) -> float:
    return (points[:, 1, 3] - targets.opening)[tip].abs().mean().item()


def _action_errors(source: SampleSource, found: dict[str, torch.Tensor], batch: Batch) -> dict[str, float]:
    if "actions" not in found:
        return {}
    mask = batch.inputs["action_mask"].cpu().numpy()
    sampled, truth = found["actions"].float().cpu().numpy(), batch.inputs["actions"].cpu().numpy()
    result = {"action": float(np.abs(sampled - truth)[mask].mean())}
    return result | _physical_errors(source, sampled, truth, mask)


def _physical_errors(
    source: SampleSource, sampled: np.ndarray, truth: np.ndarray, mask: np.ndarray
) -> dict[str, float]:
    """Of a single robot: how far its tip [mm] and gripper [share of its travel] end up from where they should be."""
    robots = list(source.embodiments.values())
    if len(robots) != 1 or robots[0].control_mode != "eef_delta":
        return {}
    names, quantiles = list(robots[0].channel_names), source.statistics[robots[0].dataset]
    if not {*POSITION, "gripper"} <= set(names):
        return {}
    width = len(names)
    difference = quantiles.unnormalize(sampled[..., :width]) - quantiles.unnormalize(truth[..., :width])
    steps = mask[..., 0].sum(axis=1)
    middle = np.maximum(np.round(steps * MEASURED).astype(int) - 1, 0)
    at_middle = difference[np.arange(len(difference)), middle][:, [names.index(name) for name in POSITION]]
    position = 1000 * np.linalg.norm(at_middle, axis=-1)
    executed = np.arange(mask.shape[1]) <= middle[:, None]
    return {
        "position_mm": float(position.mean()),
        "position_mm_median": float(np.median(position)),
        "gripper": float(np.abs(difference[..., names.index("gripper")][executed]).mean()),
    }
