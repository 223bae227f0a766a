# SPDX-License-Identifier: Apache-2.0
"""A guessed configuration as the text of an embodiment YAML, each guess as a comment over the key that it is about."""

import yaml

from embodiment_descriptions.config import EmbodimentConfig
from embodiment_descriptions.embodiment import Embodiment

# Keys of the file in the order in which a person fills them in, and the subjects of the guesses about them.
ABOUT = {
    "name robot_tag": ("robot_tag:",),
    "control_mode rate_hz chunk_size": ("control:",),
    "arms": ("arm:", "arm ", "gripper:", "hand:", "legs:", "head:", "wheels:", "propellers:", "not commanded:"),
    "base": ("base:",),
    "cameras": ("cameras:",),
    "home": ("home:",),
    "joint_states odometry": ("odometry:",),
    "commands": ("commands:",),
    "safety": ("limits:",),
}


def guessed_yaml(embodiment: Embodiment) -> str:
    """Return an embodiment that was guessed from its URDF as YAML that gives it again, with that URDF."""
    values = embodiment.model_dump(mode="json", include=set(EmbodimentConfig.model_fields), exclude_none=True)
    parts = ["# Guessed from the URDF alone. Check every line: docs/how-to/describe_a_robot.md"]
    for keys, subjects in ABOUT.items():
        said = {key: values[key] for key in keys.split() if values.get(key)}
        if said:
            comments = "".join(f"# {note}\n" for note in embodiment.inferred if note.startswith(subjects))
            parts.append(comments + "".join(_dumped(key, value) for key, value in said.items()).rstrip())
    return "\n\n".join(parts) + "\n"


def _dumped(key: str, value: object) -> str:
    style = None if isinstance(value, dict | list) else False
    return yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=style, width=110, allow_unicode=True)
