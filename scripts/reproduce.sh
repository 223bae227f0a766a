#!/usr/bin/env bash
# Trains the checkpoint of all three robots from nothing: records the data sets of three robots, trains recipe after
# recipe, keeps what inference needs, and evaluates it on validation scenes. Interrupted at any point,
# the next call goes on from there; delete out/data/joint and out/train/joint_* to begin again.
#
#   scripts/reproduce.sh [FOLDER]   FOLDER of the resulting model (default: out/reproduce/tiny)
#
#   WORKERS=N     parallel simulators (default: one per core)
#   PROCESSES=N   training processes, which share every batch: same result, sooner (default: 2; 1 on a single core
#                 or with an NVIDIA device)
#   EPISODES=N    validation scenes of each robot to evaluate on, from seed 9000 on (default: 50)
set -euo pipefail
[ $# -le 1 ] || { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
result=${1:+$(realpath -m "$1")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
result=${result:-out/reproduce/tiny}
# Each is trained before the data of the next are made: two learn from mistakes of the model before.
recipes=(config/training/joint_{grounding,actions,takeovers,takeovers_2,finish}.yaml)
suites=(widowx aloha mobile_base)
head=grounding_head.safetensors # of use to training only
WORKERS=${WORKERS:-$(nproc)}
EPISODES=${EPISODES:-50}
PROCESSES=${PROCESSES:-$([ -e /dev/nvidiactl ] || [ "$(nproc)" -eq 1 ] && echo 1 || echo 2)}
stages=$((2 * ${#recipes[@]} + 1 + ${#suites[@]}))
stage=0

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # every simulator and training process has a core to itself
unset PYTHONPATH                             # of a ROS installation that is sourced in the calling shell
trap 'echo "reproduce: interrupted; the same command goes on from here" >&2; exit 130' INT TERM

say() { # say TEXT: one line for each stage
  stage=$((stage + 1))
  echo "reproduce: $stage/$stages $1"
}

value_of() { # value_of KEY RECIPE
  sed -n "s/^$1: *//p" "$2"
}

collect_for() { # record the data sets that the comment of a recipe describes
  local arguments
  say "collect the data of $(value_of name "$1")"
  while read -ra arguments; do
    .venv/bin/qwen-vla collect "${arguments[@]}" --workers "$WORKERS" </dev/null
  done < <(sed -n 's/^# Data: qwen-vla collect //p' "$1")
}

train() {
  say "train $(value_of name "$1"): $(value_of steps "$1") steps; log and curve in $(value_of output "$1")"
  if [ "$PROCESSES" -eq 1 ]; then
    .venv/bin/qwen-vla train "$1"
  else
    .venv/bin/torchrun --standalone --nproc-per-node "$PROCESSES" .venv/bin/qwen-vla train "$1"
  fi
}

check_result() { # refuse a folder that holds something else than an earlier model
  .venv/bin/python - "$result" <<'PY'
import sys
from pathlib import Path
from qwen_vla.output_paths import OutputRefused, check_folder
from qwen_vla.training.output_folder import MODEL

try:
    check_folder(Path(sys.argv[1]), MODEL)
except OutputRefused as refused:
    sys.exit(f"reproduce: {refused}")
PY
}

keep() { # keep MODEL: everything but the head
  say "keep the model in $result"
  .venv/bin/python - "$1" "$result" "$head" <<'PY'
import shutil, sys
from pathlib import Path
from qwen_vla.output_files import folder_complete_or_absent
from qwen_vla.training.output_folder import model_files

with folder_complete_or_absent(Path(sys.argv[2]), model_files) as folder:
    shutil.copytree(sys.argv[1], folder, ignore=shutil.ignore_patterns(sys.argv[3]), dirs_exist_ok=True)
PY
}

[ -x .venv/bin/qwen-vla ] || { echo "reproduce: the environment is missing; run: make reproduce" >&2; exit 1; }
check_result
for recipe in "${recipes[@]}"; do
  collect_for "$recipe"
  train "$recipe"
done
keep "$(value_of output "${recipes[-1]}")/model"
for suite in "${suites[@]}"; do
  say "evaluate $suite on $EPISODES validation scenes"
  .venv/bin/qwen-vla evaluate "$suite" --policy "$result" --episodes "$EPISODES" --seed 9000 \
    --workers "$WORKERS" --json "${result}_$suite.json"
done
echo "reproduce: done; model in $result, one row per episode in ${result}_<suite>.json"
