# SPDX-License-Identifier: Apache-2.0
"""Typed actions: what every column of an action chunk is, and how its values are decoded and compared."""

from embodiment_descriptions.actions.channels import Channel, ChannelKind, ControlMode, arm_channel
from embodiment_descriptions.actions.layout import Action, ActionLayout, ArmAction

__all__ = ["Action", "ActionLayout", "ArmAction", "Channel", "ChannelKind", "ControlMode", "arm_channel"]
