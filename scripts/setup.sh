#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prepares this checkout: system packages, virtual environment, ROS 2 from wheels, colcon build. Called by every
# make target; does nothing if nothing changed. After an interruption, the next call resumes:
# each phase writes its stamp (the hash of its inputs) last.
#
#   PYTHON=/path/to/python3.12   interpreter (default: that of the existing environment, else the first of python3,
#                                python3.12, python3.11 that is 3.11 or 3.12)
#   ROS_DISTRO=jazzy|kilted      distribution of ROS 2 (default: that of the existing environment, else jazzy; others,
#                                of an installation that the calling shell has sourced, are ignored)
#   TORCH=cpu|cuda               build of PyTorch (default: the existing one, else cuda if there is an NVIDIA device)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
log=$root/build/setup.log
messages=qwen_vla_msgs

# A ROS installation that is sourced in the calling shell must not leak into this environment.
unset PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

die() {
  echo "setup: $*" >&2
  exit 1
}

# --- stamps ----------------------------------------------------------------------------------------------------

python_packages() { # folders of the Python packages in src/
  local file
  for file in src/*/setup.py; do [ -f "$file" ] && dirname "$file"; done
}

hash_of() { # hash of the texts on stdin and of the files named as arguments
  { cat; [ $# -eq 0 ] || sha256sum "$@"; } | sha256sum | cut -d' ' -f1
}

torch_build() { # cpu or cuda
  if [ -n "${TORCH:-}" ]; then
    echo "$TORCH"
  elif [ -f "$venv/.torch_build" ]; then
    cat "$venv/.torch_build"
  elif [ -e /dev/nvidiactl ]; then
    echo cuda
  else
    echo cpu
  fi
}

installed_distribution() { # of ROS 2 in the environment; empty if none is
  local info
  for info in "$venv"/lib/python3.*/site-packages/ros_*_rclpy-*.dist-info; do
    [ ! -d "$info" ] || basename "$info" | sed -E 's#ros_([a-z]+)_rclpy-.*#\1#'
  done
}

ros_distribution() { # the one that is wanted
  local installed
  installed=$(installed_distribution)
  case ${ROS_DISTRO:-} in
    jazzy | kilted) echo "$ROS_DISTRO" ;;
    *) echo "${installed:-jazzy}" ;;
  esac
}

key_packages() {
  echo "$root $(torch_build) $(ros_distribution)" |
    hash_of requirements.lock "requirements-$(ros_distribution).lock" scripts/repair_ros_wheels.py
}

key_messages() {
  local files
  mapfile -t files < <(find "src/$messages" -type f -not -path "*/test/*" | LC_ALL=C sort)
  key_packages | hash_of scripts/link_messages.py "${files[@]}"
}

key_workspace() { # installed data files are links, so for them only the names count
  local files
  mapfile -t files < <(find src -maxdepth 3 \( -name setup.py -o -name setup.cfg -o -name pyproject.toml -o -name package.xml \) | LC_ALL=C sort)
  { key_messages; find launch config checkpoints src/*/resource src/*/urdf -type f 2>/dev/null | LC_ALL=C sort; } | hash_of "${files[@]}"
}

current() { # current PHASE KEY: was PHASE made from KEY?
  [ -f "$venv/.stamp_$1" ] && [ "$(<"$venv/.stamp_$1")" = "$2" ]
}

stamp() {
  echo "$2" >"$venv/.stamp_$1.tmp"
  mv "$venv/.stamp_$1.tmp" "$venv/.stamp_$1"
}

same_python() { # has the environment the version of PYTHON, if that is given?
  local version='import sys; print(sys.version_info[:2])'
  [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c "$version" 2>/dev/null)" = "$("$venv/bin/python" -c "$version")" ]
}

packages_ready() { [ -x "$venv/bin/python" ] && same_python && current packages "$(key_packages)"; }
messages_ready() { [ -d "install/$messages/lib" ] && [ -d "build/$messages" ] && current messages "$(key_messages)"; }
workspace_ready() {
  local folder
  for folder in $(python_packages); do
    [ -d "install/${folder##*/}" ] && [ -d "build/${folder##*/}" ] || return 1
  done
  current workspace "$(key_workspace)"
}

# --- phases ----------------------------------------------------------------------------------------------------

phase() { # phase TEXT COMMAND...: one line of progress, all output to the log, its end when the command fails
  local text=$1 start=$SECONDS
  shift
  printf 'setup: %-58s' "$text ..."
  printf '\n===== %s: %s =====\n' "$(date '+%F %T')" "$text" >>"$log"
  # A separate subshell, because `set -e` is off inside a condition.
  set +e
  (set -e; "$@") >>"$log" 2>&1
  local code=$?
  set -e
  if [ $code -ne 0 ]; then
    echo " failed"
    tail -n 25 "$log" >&2
    die "\"$text\" failed with exit code $code; the whole log is in $log"
  fi
  echo " $((SECONDS - start)) s"
}

supported() { # is PYTHON an interpreter of a supported version? (a version manager's shim may exist and still fail)
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
    if supported "$candidate"; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
}

loadable() { "$1" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$2" >/dev/null 2>&1; }

missing_packages() { # names of the Debian packages that are missing, given the interpreter (may be empty)
  local python=$1 flavor=python3
  if [ -z "$python" ]; then
    echo python3 python3-venv python3-dev
  else
    # The distribution's default python3 is served by python3-venv, any other by python3.X-venv.
    [ "$(readlink -f "$python")" = "$(readlink -f /usr/bin/python3 2>/dev/null)" ] ||
      flavor=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || echo "$flavor-venv"
    [ -f "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || echo "$flavor-dev"
    loadable "$python" libOSMesa.so.8 || {
      loadable "$python" libEGL.so.1 && compgen -G '/usr/share/glvnd/egl_vendor.d/*.json' >/dev/null
    } || echo libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0
  fi
  { command -v g++ && command -v make; } >/dev/null || echo build-essential
  command -v cmake >/dev/null || echo cmake
}

install_system_packages() { # apt-get where that is allowed without asking, else the line for the user to run
  local runner=() packages=("$@")
  command -v apt-get >/dev/null || die "missing: ${packages[*]} (Debian names); install them with your package manager"
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || die "system packages are missing; install them, then run make again:
    sudo apt install ${packages[*]}"
    runner=(sudo -n)
  fi
  apt_get() { "${runner[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends "$@"; }
  both() { apt_get update && apt_get install "${packages[@]}"; }
  phase "system packages: ${packages[*]}" both
}

check_machine() {
  case ${TORCH:-cpu} in cpu | cuda) ;; *) die "TORCH=$TORCH is not known; use TORCH=cpu or TORCH=cuda" ;; esac
  [ -z "${PYTHON:-}" ] || supported "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.11 or 3.12"
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    die "there are no ROS 2 wheels for $(uname -s) on $(uname -m), only for Linux on x86_64; on a machine with a ROS 2
    installation build with: colcon build"
  [ -w "$root" ] || die "$root is not writable for $(id -un)"
  local missing
  mapfile -t missing < <(missing_packages "$(find_python)" | tr ' ' '\n')
  [ ${#missing[@]} -eq 0 ] || install_system_packages "${missing[@]}"
  [ -n "$(find_python)" ] || die "Python 3.11 or 3.12 is needed, found: $(python3 --version 2>&1). Install one (for
    instance with uv or pyenv), then run: make setup PYTHON=/path/to/python3.12"
}

torch_index() { # pip options that choose the build of PyTorch; PyPI's own has CUDA, which is 3 GB
  local index=https://download.pytorch.org/whl/cpu
  [ "$(torch_build)" = cpu ] || return 0
  "$venv/bin/python" - "$index" <<'PY' 2>/dev/null && echo "--extra-index-url=$index"
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/torch/", method="HEAD"), timeout=10)
PY
  return 0
}

make_environment() {
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 || ! supported "$venv/bin/python" || ! same_python ||
    ! head -n 1 "$venv/bin/pip" | grep -qF "$venv/bin/python"; then # absent, half made, or moved
    rm -rf "$venv"
    "$(find_python)" -m venv "$venv"
  fi
}

remove_another_distribution() { # two distributions share names of packages and files, and what was built is of one
  local installed
  installed=$(installed_distribution)
  if [ -n "$installed" ] && [ "$installed" != "$(ros_distribution)" ]; then
    "$venv/bin/python" -m pip list --format freeze | sed -nE 's#^(ros-[^=]+)==.*#\1#p' |
      xargs "$venv/bin/python" -m pip uninstall -y
    rm -rf "build/$messages" "install/$messages"
  fi
}

install_packages() {
  local options build
  build=$(torch_build)
  if [ -f "$venv/.torch_build" ] && [ "$(<"$venv/.torch_build")" != "$build" ]; then
    "$venv/bin/python" -m pip uninstall -y torch # to pip, both builds are the same version
  fi
  echo "$build" >"$venv/.torch_build"
  mapfile -t options < <(torch_index)
  remove_another_distribution
  "$venv/bin/python" -m pip install --progress-bar off "${options[@]}" -r requirements.lock \
    -r "requirements-$(ros_distribution).lock"
  "$venv/bin/python" scripts/repair_ros_wheels.py
}

colcon_build() { # colcon_build OPTION...: with the wheels as the ROS installation
  (. "$venv/setup.sh" && VIRTUAL_ENV=$venv colcon build --base-paths src "$@")
}

build_messages() {
  colcon_build --packages-select $messages --cmake-args "-DPython3_EXECUTABLE=$venv/bin/python"
  "$venv/bin/python" scripts/link_messages.py "install/$messages"
}

build_workspace() {
  local folders editable=() folder
  mapfile -t folders < <(python_packages)
  [ ${#folders[@]} -gt 0 ] || return 0
  for folder in "${folders[@]}"; do editable+=(-e "$folder"); done
  "$venv/bin/python" -m pip install --no-deps --no-build-isolation --use-pep517 --progress-bar off "${editable[@]}"
  colcon_build --symlink-install --packages-select "${folders[@]##*/}"
}

# --- all of it -------------------------------------------------------------------------------------------------

if packages_ready && messages_ready && workspace_ready; then
  exit 0
fi
mkdir -p build
exec 9>build/.setup.lock
flock 9 # two make calls at once: the second waits, then finds everything done
# A started phase is no longer done, regardless of its stamp: it may be interrupted.
if ! packages_ready; then
  rm -f "$venv/.stamp_packages"
  check_machine
  phase "virtual environment with $(find_python)" make_environment
  phase "Python packages, ROS 2 $(ros_distribution) (minutes; log: build/setup.log)" install_packages
  stamp packages "$(key_packages)"
fi
if ! messages_ready; then
  rm -f "$venv/.stamp_messages"
  phase "colcon build of $messages (about a minute)" build_messages
  stamp messages "$(key_messages)"
fi
if ! workspace_ready; then
  rm -f "$venv/.stamp_workspace"
  phase "Python packages of this repository" build_workspace
  stamp workspace "$(key_workspace)"
fi
echo "setup: done. Commands are in .venv/bin; for ros2 tools: source install/setup.bash"
