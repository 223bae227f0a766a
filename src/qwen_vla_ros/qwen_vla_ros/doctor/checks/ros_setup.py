# SPDX-License-Identifier: Apache-2.0
"""The environment variables that determine discovery, and other ROS processes on this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from qwen_vla_rclpy.optional_interfaces import DISTRIBUTION
from qwen_vla_ros.doctor.findings import Area, Finding, Level
from qwen_vla_ros.ros.ros_domain import FIRST_PORT, OWN_PORTS, PORTS_PER_DOMAIN

AREA = Area("ROS setup")
LAST_DOMAIN, LAST_GOOD_DOMAIN = 232, 101  # above 101, the ports overlap Linux's ephemeral ports
RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
DOMAIN, MIDDLEWARE, ROS = "domain", "middleware", "ROS 2"
UDP_TABLES = ("/proc/net/udp", "/proc/net/udp6")


def domain_of(environment: Mapping[str, str]) -> int:
    """Return the domain of an environment; 0 where it is unset or invalid."""
    text = environment.get("ROS_DOMAIN_ID", "")
    return int(text) if text.isdecimal() and int(text) <= LAST_DOMAIN else 0


def domains_in_use() -> list[int]:
    """Return the DDS domains in which processes of this machine participate."""
    return sorted(set(_domains(port for table in UDP_TABLES if Path(table).is_file() for port in _ports(table))))


def _ports(table: str) -> Iterator[int]:
    for line in Path(table).read_text().splitlines()[1:]:
        yield int(line.split()[1].rsplit(":", 1)[1], 16)


def _domains(ports: Iterable[int]) -> Iterator[int]:
    """Return the domains of participants by their listening ports (RTPS 2.5, 9.6.2.3)."""
    for port in ports:
        domain, offset = divmod(port - FIRST_PORT, PORTS_PER_DOMAIN)
        if 0 <= domain <= LAST_GOOD_DOMAIN and offset in OWN_PORTS:
            yield domain


def check_ros_setup(environment: Mapping[str, str]) -> Iterator[Finding]:
    """All checks of the variables."""
    yield check_domain(environment)
    yield check_range(environment)
    yield check_rmw(environment)


def check_domain(environment: Mapping[str, str]) -> Finding:
    """Is ROS_DOMAIN_ID a valid domain?"""
    text = environment.get("ROS_DOMAIN_ID", "")
    if not text:
        return AREA.ok(DOMAIN, "0 (ROS_DOMAIN_ID is not set)")
    if not text.isdecimal() or int(text) > LAST_DOMAIN:
        return AREA.fail(
            DOMAIN, f"ROS_DOMAIN_ID={text!r} is not a valid domain", "export ROS_DOMAIN_ID=0..101, or unset it"
        )
    if int(text) > LAST_GOOD_DOMAIN:
        fact = f"ROS_DOMAIN_ID={text} overlaps ports of other programs on Linux"
        return AREA.warn(DOMAIN, fact, "use 0..101, the same on every machine")
    return AREA.ok(DOMAIN, text)


def check_range(environment: Mapping[str, str]) -> Finding:
    """Which machines can be discovered?"""
    text = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if environment.get("ROS_LOCALHOST_ONLY", "0") not in ("", "0"):
        fact = "ROS_LOCALHOST_ONLY is set: other machines are not discovered, and it overrides the newer variables"
        return AREA.warn("discovery", fact, "unset ROS_LOCALHOST_ONLY; use ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST")
    if text and text not in RANGES:
        fact = f"ROS_AUTOMATIC_DISCOVERY_RANGE={text!r} is unknown"
        return AREA.fail("discovery", fact, f"set it to one of {', '.join(RANGES)}")
    if text == "OFF":
        fact = "ROS_AUTOMATIC_DISCOVERY_RANGE=OFF: nodes do not discover each other, not even on this machine"
        return AREA.fail("discovery", fact, "set it to LOCALHOST (one machine) or SUBNET (several)")
    peers = environment.get("ROS_STATIC_PEERS", "")
    named = f", peers {peers}" if peers else ""
    where = "this machine only" if text == "LOCALHOST" else "all machines of this network"
    return AREA.ok("discovery", f"{text or 'SUBNET (default)'}: {where}{named}")


def check_rmw(environment: Mapping[str, str]) -> Finding:
    """Which middleware is used, and is it installed?"""
    name = environment.get("RMW_IMPLEMENTATION", "")
    if not name:
        return AREA.ok(MIDDLEWARE, "the default of this ROS distribution (RMW_IMPLEMENTATION is not set)")
    prefixes = [Path(prefix) for prefix in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    places = [prefix / "share/ament_index/resource_index/rmw_typesupport" for prefix in prefixes]
    installed = sorted(
        {path.name for place in places if place.is_dir() for path in place.iterdir()} - {"rmw_implementation"}
    )
    if installed and name not in installed:
        distribution = environment.get("ROS_DISTRO", DISTRIBUTION)
        remedy = f"apt install ros-{distribution}-{name.replace('_', '-')}, or use one of {', '.join(installed)}"
        return AREA.fail(MIDDLEWARE, f"RMW_IMPLEMENTATION={name} is not installed", remedy)
    router = "; requires its router: ros2 run rmw_zenoh_cpp rmw_zenohd" if "zenoh" in name else ""
    return AREA.ok(MIDDLEWARE, f"{name}{router}")


def check_ros() -> Finding:
    """Can ROS and the interfaces of this suite be imported?"""
    if importlib.util.find_spec("rclpy") is None:
        remedy = "source /opt/ros/<distribution>/setup.bash, or run make setup; --offline does not need it"
        return AREA.fail(ROS, "rclpy cannot be imported: ROS 2 is not installed or not sourced", remedy)
    if importlib.util.find_spec("qwen_vla_msgs") is None:
        remedy = "build the workspace (make setup, or colcon build) and source install/setup.bash"
        return AREA.fail(ROS, "qwen_vla_msgs is not built or not sourced", remedy)
    return AREA.ok(ROS, "rclpy and qwen_vla_msgs are installed")


def can_join(findings: Iterable[Finding]) -> bool:
    """Return whether this process can join a graph at all."""
    needed = {(AREA.name, subject) for subject in (DOMAIN, MIDDLEWARE, ROS)}
    return not any((f.area, f.subject) in needed and f.level is Level.FAIL for f in findings)
