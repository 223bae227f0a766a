#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the suite in a colcon workspace on an installed ROS 2: system packages by rosdep, what Linux distributions do not
# have by pip in a virtual environment that sees the system's packages, then colcon. Source the ROS installation first.
#
#   scripts/into_workspace.sh [--no-rosdep] [WORKSPACE]     default: the workspace in whose src/ this repository lies
#
#   --no-rosdep   the system packages are there, or installed otherwise
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  echo "into_workspace: $*" >&2
  exit 1
}

rosdep=yes
if [ "${1:-}" = --no-rosdep ]; then rosdep=no && shift; fi
workspace=$(realpath -m "${1:-$repository/../..}")
venv=$workspace/venv

[ -n "${AMENT_PREFIX_PATH:-}" ] || die "no ROS installation is sourced; run first: source /opt/ros/<distribution>/setup.bash"
case $repository in "$workspace"/src/*) ;; *) die "$repository is not in $workspace/src; clone or link it there" ;; esac
command -v colcon >/dev/null || die "colcon is missing; install it: sudo apt install python3-colcon-common-extensions"

pip_keys() { # rosdep's keys that stand for pip; they go into the virtual environment
  sed -nE 's#.*depend>(python3-[a-z0-9-]+-pip)<.*#\1#p' "$repository"/src/*/package.xml | sort -u | tr '\n' ' '
}

requirements() { # what the Python packages here ask pip for, other than each other
  "$venv/bin/python" - "$repository"/src/*/pyproject.toml <<'PY'
import sys, tomllib
from pathlib import Path

projects = [tomllib.loads(Path(file).read_text())["project"] for file in sys.argv[1:]]
ours = {project["name"] for project in projects}
print("\n".join(sorted({line for project in projects for line in project["dependencies"]} - ours)))
PY
}

if [ $rosdep = yes ]; then
  command -v rosdep >/dev/null || die "rosdep is missing; install it: sudo apt install python3-rosdep, then sudo rosdep init"
  rosdep update --rosdistro "$ROS_DISTRO"
  rosdep install --from-paths "$repository/src" --ignore-src --rosdistro "$ROS_DISTRO" -y --skip-keys "$(pip_keys)"
fi

# The interpreter is the one for which ROS was built; colcon must not take the environment for a package.
[ -x "$venv/bin/python" ] || python3 -m venv --system-site-packages "$venv"
touch "$venv/COLCON_IGNORE"
requirements | "$venv/bin/python" -m pip install --constraint "$repository/requirements.lock" --requirement /dev/stdin

cd "$workspace"
# With the environment's interpreter, so that the nodes start with it, too.
"$venv/bin/python" "$(command -v colcon)" build --symlink-install --base-paths "$repository/src" \
  --cmake-args "-DPython3_EXECUTABLE=$venv/bin/python"
echo "into_workspace: done. In each shell: source $venv/bin/activate && source $workspace/install/setup.bash"
