# SPDX-License-Identifier: Apache-2.0
"""The wheels' files fit this machine, and the setup scripts extend search paths without doubling them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "repair_ros_wheels.py"
_spec = importlib.util.spec_from_file_location("repair_ros_wheels", SCRIPT)
repair_ros_wheels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(repair_ros_wheels)

EXPORTED = (
    'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp312-cp312/include/python3.12;'
    '/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include;${_IMPORT_PREFIX}/include/std_msgs"'
)


def test_paths_of_the_build_machine_are_replaced_and_others_kept() -> None:
    text = repair_ros_wheels.repaired(EXPORTED, r"/usr/include/\1", "/venv/site-packages")
    assert text == (
        r'INTERFACE_INCLUDE_DIRECTORIES "/usr/include/\1;'
        '/venv/site-packages/numpy/_core/include;${_IMPORT_PREFIX}/include/std_msgs"'
    )
    assert repair_ros_wheels.repaired(text, "/elsewhere", "/elsewhere") == text


def test_this_environment_is_repaired() -> None:
    prefix = Path(sys.prefix)
    files = list(prefix.glob("share/*/cmake/*.cmake"))
    if not files:
        pytest.skip("ROS 2 is not from wheels here")
    assert [f for f in files if "/opt/python/" in f.read_text(encoding="utf-8")] == []


def test_a_prefix_without_wheels_is_refused_with_the_way_out(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    assert result.returncode == 1
    assert str(tmp_path) in result.stderr
    assert "requirements.lock" in result.stderr


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_sourcing_twice_adds_once_and_keeps_what_was_there(tmp_path: Path, shell: str) -> None:
    prefix = tmp_path / "a b'c"
    prefix.mkdir()
    repair_ros_wheels.write_setup_scripts(prefix)
    result = subprocess.run(
        [
            shell,
            "-c",
            '. "$1"/setup.sh; . "$1"/local_setup.sh; printf "%s\\n" "$AMENT_PREFIX_PATH" "$PATH"',
            "-",
            prefix,
        ],
        env={"PATH": "/usr/bin:/bin", "AMENT_PREFIX_PATH": "/opt/other"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == [f"{prefix}:/opt/other", f"{prefix}/bin:/usr/bin:/bin"]
