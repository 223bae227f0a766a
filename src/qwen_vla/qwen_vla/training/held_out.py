"""How good a run is on the frames that it never trains on, with its averaged weights."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from qwen_vla.modeling import Encoding
from qwen_vla.training.batches import Batch
from qwen_vla.training.run import EXECUTION_SHARE, Run, averaged

FRAMES = 96  # of each source
EULER_STEPS = 4


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Errors of sampled actions [mm], of the gripper [share of its travel] and of grounding [share of the image]."""
    rows: list[dict] = []
    with averaged(run), torch.random.fork_rng():
        torch.manual_seed(0)
        for source in run.batches.sources:
            if len(source.held_out):
                batch = run.batches.held_out(source, FRAMES).to(run.accelerator.device)
                encoding = run.model.encode(**batch.inputs)
                rows.append(_grounding_errors(run, encoding, batch) | _action_errors(run, encoding, batch))
    return {f"held_out/{key}": value for key, value in mean(rows).items()}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key over the rows that have it."""
    keys = {key for row in rows for key in row}
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in sorted(keys)}


def image_tokens(encoding: Encoding, batch: Batch) -> torch.Tensor:
    """Hidden states of image tokens as (B, images, N, D); every row of a batch has the same number of images."""
    count, images = encoding.hidden.shape[0], batch.grounding.points.shape[1]
    return encoding.hidden[encoding.image_token_mask].view(count, images, -1, encoding.hidden.shape[-1])


def _grounding_errors(run: Run, encoding: Encoding, batch: Batch) -> dict[str, float]:
    found = run.head.locate(image_tokens(encoding, batch))
    truth, seen = batch.grounding.points, batch.grounding.visible
    error = (found[..., :2] - truth[..., :2]).norm(dim=-1)
    cube, tip = seen[..., 0], seen[..., 1]
    result = {"opening": (found[:, 1, 1, 3] - batch.grounding.opening).abs().mean().item()}
    if bool(cube.any()):
        depth = (found - F.pad(truth, (0, 1)))[..., 0, 2]
        result["cube"] = error[..., 0][cube].mean().item()
        result["cube_median"] = error[..., 0][cube].median().item()
        result["cube_depth_m"] = depth[cube].abs().mean().item()
    if bool(tip.any()):
        result["tip"] = error[..., 1][tip].mean().item()
    return result


def _action_errors(run: Run, encoding: Encoding, batch: Batch) -> dict[str, float]:
    if batch.actions is None or not run.recipe.losses.action:
        return {}
    sampled = run.model.sample_actions(encoding, batch.action_mask, steps=EULER_STEPS).cpu().numpy()
    quantiles = run.batches.processor.normalization[run.batches.embodiment.dataset]
    channels = len(quantiles.q01)
    truth = quantiles.unnormalize(batch.actions.cpu().numpy()[..., :channels])
    difference = quantiles.unnormalize(sampled[..., :channels]) - truth
    middle = round(truth.shape[1] * EXECUTION_SHARE) - 1
    position = 1000 * np.linalg.norm(difference[:, middle, :3], axis=-1)
    return {
        "position_mm": float(position.mean()),
        "position_mm_median": float(np.median(position)),
        "gripper": float(np.abs(difference[:, : middle + 1, -1]).mean()),
    }
