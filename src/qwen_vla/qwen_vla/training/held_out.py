# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run on held-out samples, with its averaged weights."""

from __future__ import annotations

import numpy as np
import torch

from embodiment_descriptions import ControlMode
from qwen_vla.data.samples import SampleSource
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.sample import TIPS
from qwen_vla.training.batching.batch import Batch
from qwen_vla.training.run import Run, averaged

SAMPLES = 96  # of each source
BY_SOURCE = ("action", "position_mm", "answer")
MEASURED = 0.5  # fraction of a chunk at which positions are compared: about where the next chunk starts


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Errors of sampled actions and of grounding [share of the image]; every process must call it.

    `object`, `goal`, `tip`: mean distance between true and located points; `in_view`: accuracy of whether points are in
    the image. `answer`: share of the questions answered without an error, with teacher forcing. `action`: mean error of
    the normalized actions; in a robot's own channels halfway through the chunk, `position_mm` of a tip or base,
    `joint_mrad`, `heading_mrad`, and `gripper` [share of its travel] until there. Means over the sources that have
    each; with several sources, also each one's `action`, `position_mm` and `answer` under its name.
    """
    rows: dict[str, dict] = {}
    with averaged(run), torch.random.fork_rng():
        torch.manual_seed(0)
        run.learner.eval()
        for source in run.sources:
            if len(source.held_out):
                batch = run.batches.held_out(source, SAMPLES).to(run.accelerator.device)
                found = run.wrapped(batch, run.model.config.euler_steps)
                rows[source.name] = {
                    **_grounding_errors(found, batch),
                    **_answer_share(found),
                    **_action_errors(source, found, batch),
                }
        run.learner.train()
    result = mean(list(rows.values()))
    if len(rows) > 1:
        result |= {f"{name}/{key}": row[key] for name, row in rows.items() for key in BY_SOURCE if key in row}
    return {f"held_out/{key}": value for key, value in result.items()}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key over the rows that have it."""
    keys = {key for row in rows for key in row}
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in sorted(keys)}


def _grounding_errors(found: dict[str, torch.Tensor], batch: Batch) -> dict[str, float]:
    points, targets = found.get("points"), batch.grounding
    if points is None or targets is None:
        return {}
    error = (points[..., :2] - targets.points[..., :2]).norm(dim=-1)
    result = {}
    for name, columns in (("object", slice(0, 1)), ("goal", slice(1, 2)), ("tip", slice(-TIPS, None))):
        seen = targets.visible[:, columns]
        if bool(seen.any()):
            result[name] = error[:, columns][seen].mean().item()
    thing = targets.visible[:, 0]
    if bool(thing.any()):
        depth = (points[..., 2] - targets.points[..., 2])[:, 0]
        result["object_median"] = error[:, 0][thing].median().item()
        result["object_depth_m"] = depth[thing].abs().mean().item()
    known = targets.openings_known
    if bool(known.any()):
        result["opening"] = (points[:, -TIPS:, 3] - targets.openings)[known].abs().mean().item()
    asked = targets.visible | targets.hidden
    if bool(asked.any()):
        result["in_view"] = ((points[..., 4] > 0.5) == targets.visible)[asked].float().mean().item()
    return result


def _answer_share(found: dict[str, torch.Tensor]) -> dict[str, float]:
    return {"answer": found["answers"].float().mean().item()} if "answers" in found else {}


def _action_errors(source: SampleSource, found: dict[str, torch.Tensor], batch: Batch) -> dict[str, float]:
    if "actions" not in found:
        return {}
    mask = batch.inputs["action_mask"].cpu().numpy()
    sampled, truth = found["actions"].float().cpu().numpy(), batch.inputs["actions"].cpu().numpy()
    result = {"action": float(np.abs(sampled - truth)[mask].mean())}
    robots = list(source.embodiments.values())
    if len(robots) != 1:
        return result
    quantiles, width = source.statistics[robots[0].dataset], len(robots[0].channel_names)
    sampled, truth = (quantiles.unnormalize(chunks[..., :width]) for chunks in (sampled, truth))
    steps = mask[..., 0].sum(axis=1)
    middle = np.maximum(np.round(steps * MEASURED).astype(int) - 1, 0)
    return result | _physical_errors(robots[0], sampled, truth, middle)


def _physical_errors(
    robot: EmbodimentInfo, sampled: np.ndarray, truth: np.ndarray, middle: np.ndarray
) -> dict[str, float]:
    """Errors of chunks (N, H, c) in physical units: deviation of the robot from its target at step `middle` (N,)."""
    layout, result = robot.layout, {}
    error = layout.difference(robot.to_chunk(sampled), robot.to_chunk(truth))
    there = error[np.arange(len(truth)), middle]
    if robot.control_mode is ControlMode.BASE_WAYPOINTS:
        result |= _positions(there[:, layout.base[:2]])
        result["heading_mrad"] = float(1000 * np.abs(there[:, layout.base[2]]).mean())
    if len(layout.translations):
        result |= _positions(there[:, layout.translations].reshape(-1, 3))
    if len(layout.joints):
        result["joint_mrad"] = float(1000 * np.abs(there[:, layout.joints]).mean())
    if len(layout.grippers):
        executed = np.arange(truth.shape[1]) <= middle[:, None]
        result["gripper"] = float(np.abs(error[..., layout.grippers][executed]).mean())
    return result


def _positions(errors: np.ndarray) -> dict[str, float]:
    """Length of the errors (N, 2 or 3) [m], in millimeters."""
    lengths = 1000 * np.linalg.norm(errors, axis=-1)
    return {"position_mm": float(lengths.mean()), "position_mm_median": float(np.median(lengths))}
