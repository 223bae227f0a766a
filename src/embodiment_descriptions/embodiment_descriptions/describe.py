# SPDX-License-Identifier: Apache-2.0
"""An embodiment as human-readable text: tables, the exact prompt, and whatever was guessed."""

from embodiment_descriptions.commands import CommandInterface
from embodiment_descriptions.config import Base, BaseLimits
from embodiment_descriptions.embodiment import Embodiment, JointLimit

EXAMPLE_INSTRUCTION = "pick up the red cube"


def describe(embodiment: Embodiment, instruction: str = EXAMPLE_INSTRUCTION) -> str:
    """Return the tables of joints (if any), channels and cameras, and the prompt for an instruction, as plain text.

    The prompt has a line of its own, byte for byte as the model gets it.
    """
    e = embodiment
    parts = [
        f"{e.name}  (robot tag: {e.robot_tag})",
        _summary(e),
        *([_joint_table(e)] if e.joint_names else []),
        _table(
            ("camera", "markers", "topic", "max age [s]"),
            [
                (camera.tag, f"{start} {end}", camera.topic, f"{camera.max_age_s:g}")
                for camera, (start, end) in zip(e.cameras, e.image_markers(), strict=True)
            ],
        ),
        f"prompt for {instruction!r}:\n{e.prompt(instruction)}",
    ]
    if e.inferred:
        notes = "\n".join(f"  - {note}" for note in e.inferred)
        parts.insert(1, f"no YAML was given; this was guessed from the URDF, check it:\n{notes}")
    return "\n\n".join(parts) + "\n"


def _summary(e: Embodiment) -> str:
    rows = [
        ("control mode", f"{e.control_mode}, {e.rate_hz:g} Hz, {e.chunk_size} actions per chunk"),
        ("channels", " ".join(e.channel_names)),
    ]
    for arm in e.arms:
        gripper = arm.gripper
        ends = f"{arm.base_link} to {arm.tip_link}, {len(arm.joints)} joint{'s' if len(arm.joints) > 1 else ''}"
        rows.append((f"arm {arm.name!r}", ends))
        if gripper is not None:
            rows.append(("gripper", f"{gripper.joint}: closed {gripper.closed:g}, open {gripper.open:g}"))
        if arm.hand:
            rows.append(("hand", ", ".join(arm.hand)))
    if e.has_waist:
        rows.append(("waist", ", ".join(e.waist)))
    if e.base is not None:
        rows.append(("base", _base(e.base, e.safety.base)))
    rows += [(command.backend, _command(command)) for command in e.commands]
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows)


def _joint_table(e: Embodiment) -> str:
    header = ("joint", "part", "lower", "upper", "velocity", "effort", "home")
    rows = [(name, _part(e, name), *_limits(e.limits[name]), f"{e.home[name]:.4f}") for name in e.joint_names]
    return _table(header, rows) + "\n(m or rad, per second, N or Nm)"


def _base(base: Base, limits: BaseLimits | None) -> str:
    return f"{base.kind}" + (f", {limits.max_linear:g} m/s, {limits.max_angular:g} rad/s" if limits else "")


def _command(command: CommandInterface) -> str:
    return command.endpoint + (f": {', '.join(command.commanded)}" if command.commanded else "")


def _part(e: Embodiment, joint: str) -> str:
    for arm in e.arms:
        if joint in arm.joints:
            return arm.name
        if arm.gripper is not None and joint == arm.gripper.joint:
            return "gripper"
        if joint in arm.hand:
            return "hand"
    return "waist"


def _limits(limit: JointLimit) -> tuple[str, ...]:
    return tuple(f"{value:.4f}" for value in (limit.lower, limit.upper, limit.velocity, limit.effort))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, tuple("-" * width for width in widths), *rows]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
