#!/usr/bin/env bash
# Makes the data of all tiny recipes (config/training/*_tiny.yaml) in out/data/tiny: a few minutes. Interrupted at any point,
# the next call goes on from there.
#
#   scripts/make_data.sh [RECIPE...]   recipes whose data to make (default: config/training/*_tiny.yaml)
#
#   WORKERS=N     parallel simulators (default: one per core)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WORKERS=${WORKERS:-$(nproc)}
recipes=("$@")
[ $# -gt 0 ] || recipes=(config/training/*_tiny.yaml)

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # every simulator has a core to itself
unset PYTHONPATH                             # of a ROS installation that is sourced in the calling shell
trap 'echo "make_data: interrupted; the same command goes on from here" >&2; exit 130' INT TERM

[ -x .venv/bin/qwen-vla ] || { echo "make_data: the environment is missing; run: make data" >&2; exit 1; }
# The comments of the recipes say how their data are made; several recipes share some.
mapfile -t commands < <(sed -n 's/^# Data: qwen-vla \(collect .*\)/\1/p' "${recipes[@]}" | sort -u)
for number in "${!commands[@]}"; do
  echo "make_data: $((number + 1))/${#commands[@]} ${commands[number]}"
  read -ra arguments <<< "${commands[number]}"
  .venv/bin/qwen-vla "${arguments[@]}" --workers "$WORKERS"
done
echo "make_data: done; train with .venv/bin/qwen-vla train config/training/t2a_tiny.yaml, then cpt_tiny, then sft_tiny"
