#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes an environment with Hugging Face's own lerobot, separate from ours: its pins (torch < 2.11, av < 16, ...) contradict
# ours, so the parity test (`pytest -m slow src/qwen_vla/test/data/formats/test_lerobot_parity.py`) runs it as a program.
#
#   scripts/lerobot_venv.sh [FOLDER]     default: out/lerobot_venv; does nothing if it exists
#   PYTHON=/path/to/python3.12           interpreter (default: that of .venv); lerobot 0.6 needs 3.12, older ones get 0.4
#
# If PyTorch's index of CPU builds is reachable, the build without CUDA is installed, else PyPI's (7 GB on disk).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-out/lerobot_venv}
python=${PYTHON:-.venv/bin/python}
version=$("$python" -c "import sys; print('0.6.1' if sys.version_info >= (3, 12) else '0.4.4')")
index=https://download.pytorch.org/whl/cpu

unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

if [ "$(cat "$folder/.lerobot" 2>/dev/null)" = $version ]; then
  echo "lerobot $version is in $folder"
  exit 0
fi
"$python" -m venv --clear "$folder"
options=()
if "$python" -c "import urllib.request as u; u.urlopen(u.Request('$index/torch/', method='HEAD'), timeout=10)" 2>/dev/null; then
  options=(--extra-index-url "$index")
fi
"$folder/bin/python" -m pip install --progress-bar off "${options[@]}" "lerobot[dataset]==$version"
echo $version >"$folder/.lerobot"
