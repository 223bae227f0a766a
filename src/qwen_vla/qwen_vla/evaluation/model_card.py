# SPDX-License-Identifier: Apache-2.0
"""The model card: README.md of a checkpoint folder, written only from the records in that folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from qwen_vla.evaluation.summary import conditions_as_text, rate_as_text, read_summary, seeds_as_text
from qwen_vla.evaluation.tables import markdown_table
from qwen_vla.model.checkpoint.config_file import ConfigFile
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.checkpoint.files import (
    TrainingRecord,
    check_checkpoint,
    read_embodiments,
    read_normalization,
    read_training,
    read_weight_headers,
)
from qwen_vla.model.normalization import Quantiles
from qwen_vla.output_files import write_text

CARD_FILE = "README.md"
PAPER = "[Qwen-VLA, arXiv 2605.30280](https://arxiv.org/abs/2605.30280)"
LICENSE = "apache-2.0"
Embodiments = Mapping[str, EmbodimentInfo]


def write_model_card(folder: str | Path, evaluations: Sequence[str | Path] = ()) -> Path:
    """Write README.md into the checkpoint ``folder`` and return its path.

    evaluations: JSON files of ``qwen-vla evaluate --json``. What the folder does not record (training, evaluation) is
    stated as not recorded. Raises FileNotFoundError or ValueError naming a missing or corrupt file.
    """
    folder = Path(folder)
    config, training, embodiments = check_checkpoint(folder), read_training(folder), read_embodiments(folder)
    results = [read_summary(Path(path)) for path in evaluations]
    parts = [
        _front_matter(_name_of(folder, training), embodiments, results),
        _summary(folder, config, training, embodiments),
        _intended_use(embodiments),
        _use(folder, training, embodiments),
        _evaluation(results),
        _training(training),
        _embodiments(embodiments),
        _statistics(read_normalization(folder)),
        _limits(training, embodiments, bool(evaluations)),
        _license(training),
    ]
    card = folder / CARD_FILE
    write_text(card, "\n\n".join(parts) + "\n")
    return card


def _name_of(folder: Path, training: TrainingRecord) -> str:
    """The name of a model: that of its last recipe, or of its folder."""
    return training.recipe.get("name", folder.name)


def _front_matter(name: str, embodiments: Embodiments, results: Sequence[Mapping[str, Any]]) -> str:
    """The metadata that a hub reads, with the results of test scenes only."""
    fields = ModelCardData(
        model_name=name,
        language="en",
        license=LICENSE,
        library_name="qwen_vla",
        pipeline_tag="robotics",
        tags=["vision-language-action", "flow-matching", "ros2", *sorted(embodiments)],
        eval_results=[_hub_result(result) for result in results if result["split"] == "test"] or None,
    )
    return f"---\n{fields.to_yaml()}\n---"


def _hub_result(result: Mapping[str, Any]) -> EvalResult:
    """A result for the hub, which takes those of equal suite, split and configuration for one."""
    seeds = f"seeds {result['seed']} to {result['seed'] + result['episodes'] - 1}"
    condition, (low, high) = conditions_as_text(result), result["wilson_95"]
    return EvalResult(
        task_type="robotics",
        dataset_type=result["suite"],
        dataset_name=f"simulated scenes of {result['suite']}",
        dataset_config=seeds if condition == "–" else f"{seeds}, {condition}",
        dataset_split=result["split"],
        metric_type="success_rate",
        metric_name=f"success rate (95 % interval {low:.2f} to {high:.2f})",
        metric_value=result["success_rate"],
    )


def _summary(folder: Path, config: ConfigFile, training: TrainingRecord, embodiments: Embodiments) -> str:
    text, expert = config.vlm_config.text_config, config.expert_config
    rows = [
        ("parameters", f"{_parameters(folder) / 1e6:,.1f} M"),
        ("language tower", f"{text.num_hidden_layers} layers, width {text.hidden_size}"),
        ("vision tower", f"{config.vlm_config.vision_config.depth} layers; images of {config.image_size}²"),
        ("action expert", f"{expert.num_layers} blocks, width {expert.hidden_size}, {expert.num_heads} heads"),
        ("action tensor", f"{config.horizon} steps × {expert.action_channels} channels"),
        ("Euler steps", f"{config.euler_steps} by default"),
        ("noise temperature", f"{config.noise_temperature:g}"),
        ("proprioception", config.proprioception),
        ("τ", f"{config.tau_distribution}, toward {config.tau_direction}"),
    ]
    robots = ", ".join(sorted(embodiments)) or "no robot"
    return (
        f"# {_name_of(folder, training)}\n\nA vision-language-action model for {robots}, after {PAPER}.\n\n"
        + markdown_table(("", ""), rows)
    )


def _intended_use(embodiments: Embodiments) -> str:
    robots = ", ".join(sorted(embodiments)) or "no robot"
    return f"""## Intended use

Research on instruction following with {robots}, in simulation or behind a gate that refuses unsafe motion. It is not
meant for robots, cameras or tasks that it was not trained for, nor for use near people without an emergency stop."""


def _use(folder: Path, training: TrainingRecord, embodiments: Embodiments) -> str:
    if not embodiments:
        return "## Use\n\nOnly for further training: it was not trained on actions."
    robot = _robot_at_hand(training, embodiments)
    others = ", ".join(sorted(set(embodiments) - {robot}))
    note = f"It also knows {others}.\n\n" if others else ""
    return f"""## Use

{note}```python
import numpy as np

from qwen_vla import Observation, Policy

policy = Policy.from_pretrained("{folder.name}", embodiment="{robot}")  # the path of this folder
images = {{tag: np.zeros((480, 640, 3), np.uint8) for tag in policy.camera_tags}}  # RGB, as the cameras see it
state = np.zeros(len(policy.state_names)) if policy.state_names else None  # joint positions [rad | m], in this order
chunk = policy.infer(Observation(images, "what to do", state=state))
print(chunk.channel_names, chunk.data)  # a row for every {embodiments[robot].period:g} s
```"""


def _robot_at_hand(training: TrainingRecord, embodiments: Embodiments) -> str:
    """The robot of the data that it was trained on last; the last one that it learned, where that is not recorded."""
    facts = (fact for entry in training.data for fact in (entry.model_extra or {}).values())
    named = [fact for fact in facts if isinstance(fact, str) and fact in embodiments]
    return named[0] if named else list(embodiments)[-1]


def evaluation_table(results: Sequence[Mapping[str, Any]]) -> str:
    """The card's table of evaluations (Markdown)."""
    rows = [(r["suite"], conditions_as_text(r), seeds_as_text(r), rate_as_text(r)) for r in results]
    return markdown_table(("suite", "condition", "seeds", "success (95 % interval)"), rows)


def _evaluation(results: list[dict[str, Any]]) -> str:
    return "## Evaluation\n\n" + (evaluation_table(results) if results else "None is recorded.")


def _training(training: TrainingRecord) -> str:
    recipe = training.recipe
    if not recipe:
        return "## Training\n\nNot recorded."
    lines = [f"{training.step:,} of {training.steps:,} steps, seed {recipe.get('seed')}."] if training.steps else []
    if recipe.get("backbone"):
        lines.append(f"Backbone weights from `{recipe['backbone']}`.")
    if recipe.get("init_from"):
        lines.append(f"Started from `{recipe['init_from']}`.")
    for number, entry in enumerate(training.data, 1):
        facts = json.loads(entry.model_dump_json(exclude_unset=True))
        lines.append(f"\nData {number}: " + ", ".join(f"{key} {_short(value)}" for key, value in facts.items()) + ".")
    return "## Training\n\n" + "\n".join(lines) + f"\n\n```yaml\n{yaml.safe_dump(recipe, sort_keys=False)}```"


def _embodiments(embodiments: Embodiments) -> str:
    parts = []
    for name, e in sorted(embodiments.items()):
        rows = [
            ("control", f"{e.control_mode}, {1 / e.period:g} Hz"),
            ("chunk", f"{e.horizon} steps, of which {e.execution_horizon} are executed"),
            ("channels", ", ".join(e.channel_names)),
            ("cameras", ", ".join(e.camera_tags) or "none"),
            ("statistics", e.dataset),
        ]
        parts.append(f"### {name}\n\n{markdown_table(('', ''), rows)}\n\n> {e.prompt_template}")
    return "## Robots\n\n" + ("\n\n".join(parts) or "None: this model was not trained on actions.")


def _statistics(normalization: dict[str, Quantiles]) -> str:
    parts = []
    for name, q in sorted(normalization.items()):
        channels = q.channel_names or [str(i) for i in range(len(q.q01))]
        rows = [(c, f"{low:.4g}", f"{high:.4g}") for c, low, high in zip(channels, q.q01, q.q99, strict=True)]
        parts.append(f"### {name}\n\n" + markdown_table(("channel", "1 % quantile", "99 % quantile"), rows))
    intro = "The values of −1 and 1 of the model's output, in the channels' units.\n\n"
    return "## Normalization\n\n" + (intro + "\n\n".join(parts) if parts else "None.")


def _limits(training: TrainingRecord, embodiments: Embodiments, evaluated: bool) -> str:
    items = ["It works for the robots, cameras, scenes and instructions of its training; expect nothing beyond them."]
    items.append("It has no safety function: a gate between it and the robot decides what is executed.")
    if not evaluated:
        items.append("Its performance is not recorded.")
    if training.steps and training.step is not None and training.step < training.steps:
        done = f"{training.step} of {training.steps} steps"
        items.append(f"Its training stopped before the end of its schedule ({done}).")
    if not embodiments:
        items.append("It is only a vision-language model, not trained on robot actions.")
    return "## Limits\n\n" + "\n".join(f"- {item}" for item in items)


def _license(training: TrainingRecord) -> str:
    backbone = training.recipe.get("backbone")
    extra = f" The backbone was initialized from `{backbone}`, whose license applies, too." if backbone else ""
    return f"## License\n\nApache-2.0.{extra}"


def _parameters(folder: Path) -> int:
    """Number of parameters in the weight files; a tied matrix counts once."""
    return sum(math.prod(tensor.shape) for tensor in read_weight_headers(folder).values())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
