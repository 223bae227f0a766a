#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mesa.sh FOLDER: where the system has no Vulkan driver, put that of Mesa 25 for CPUs (lavapipe) into FOLDER/mesa.
# SAPIEN needs its descriptor indexing. Debian 13 has it; for Debian 12 it is taken from backports, without installing it.
set -euo pipefail
folder=$1
. /etc/os-release
if compgen -G "/usr/share/vulkan/icd.d/*" > /dev/null || compgen -G "/etc/vulkan/icd.d/*" > /dev/null; then exit 0; fi
if [ "${VERSION_CODENAME:-}" != bookworm ] || ! command -v apt-get > /dev/null; then
  echo "no Vulkan driver: install Mesa 25 or newer (mesa-vulkan-drivers), or the driver of the GPU" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists,cache/archives}/partial "$work"/packages
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$')
printf 'deb %s bookworm main\ndeb %s bookworm-backports main\n' "$mirror" "$mirror" > "$work"/sources.list
cat > "$work"/apt.conf <<EOF
Dir::State "$work/state"; Dir::Cache "$work/cache"; Dir::Etc::sourcelist "$work/sources.list"; Dir::Etc::sourceparts "-";
Acquire::Languages "none"; APT::Sandbox::User "";
EOF
export APT_CONFIG=$work/apt.conf
apt-get -qq update
(cd "$work"/packages && apt-get -qq download {mesa-vulkan-drivers,libdrm2,libdrm-amdgpu1}/bookworm-backports)
for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work"/root; done
mkdir -p "$folder"/mesa
cp "$work"/root/usr/lib/*/{libdrm.so.2,libvulkan_lvp.so} "$folder"/mesa
sed "s#\"libvulkan_lvp.so\"#\"$folder/mesa/libvulkan_lvp.so\"#" "$work"/root/usr/share/vulkan/icd.d/lvp_icd.json > "$folder"/mesa/lvp_icd.json
missing=$(LD_LIBRARY_PATH="$folder"/mesa ldd "$folder"/mesa/libvulkan_lvp.so | awk '/not found/ {print $1}')
if [ -n "$missing" ]; then
  echo "the Vulkan driver needs libraries that the system lacks: apt-get install libgl1-mesa-dri (missing:" $missing")" >&2
  exit 1
fi
