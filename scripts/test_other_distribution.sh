#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests of running nodes on another distribution of ROS 2: in a copy of this checkout below build/, with an environment
# of its own, so that .venv stays as it is. The next call uses that environment again.
#
#   scripts/test_other_distribution.sh kilted
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export ROS_DISTRO=${1:?which one? scripts/test_other_distribution.sh jazzy|kilted}
copy=$PWD/build/$ROS_DISTRO
mkdir -p "$copy"
find "$copy" -mindepth 1 -maxdepth 1 ! -name .venv ! -name build ! -name install -exec rm -rf {} +
tar -c --exclude-vcs --exclude=./{.venv,build,install,log,out} . | tar -x -C "$copy"
make -C "$copy" test ARGS=nodes
