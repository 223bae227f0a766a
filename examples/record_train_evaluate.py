# SPDX-License-Identifier: Apache-2.0
"""Record demonstrations, see what is understood of them, fine-tune the shipped model on them, and evaluate the result.

    .venv/bin/python examples/record_train_evaluate.py [FOLDER] [STEPS]

Each step is a command of `qwen-vla`, which is printed. The numbers are too small to teach anything: they show the way.
With a robot of yours, `record:=true` and `qwen-vla convert` take the place of the first step.
"""

import subprocess
import sys
from pathlib import Path

from embodiment_descriptions import resource_path

RECIPE = """\
stage: sft
name: example
init_from: {model}
output: {folder}/train
tau: {{direction: noise}}        # as the model was trained before
data:
  - {{kind: robot, path: {folder}/data, use_state: false}}
steps: {steps}
batch_size: 4
optimizer: {{backbone_lr: 1.0e-5, expert_lr: 1.0e-5, warmup_steps: 1}}
"""


def main(folder: str = "out/example", steps: str = "20") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    recipe = Path(folder, "recipe.yaml")
    recipe.write_text(RECIPE.format(model=resource_path("checkpoints/tiny"), folder=folder, steps=steps))
    qwen_vla("collect", "widowx", "--episodes", "4", "--seed", "1700000", "--out", f"{folder}/data")
    qwen_vla("inspect", f"{folder}/data")
    qwen_vla("train", str(recipe))
    qwen_vla("evaluate", "widowx", "--policy", f"{folder}/train/model", "--episodes", "2", "--seed", "9000")


def qwen_vla(*words: str) -> None:
    """Run a command; one that fails ends the example."""
    print("$ qwen-vla", *words, flush=True)
    subprocess.run([sys.executable, "-m", "qwen_vla", *words], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
