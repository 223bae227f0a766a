# SPDX-License-Identifier: Apache-2.0
"""Quality of service: the profiles of the suite's own topics, and the one that fits what others publish."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy


class Offer(Protocol):
    """What a publisher offers, as far as a subscription has to match it; a QoSProfile is one."""

    @property
    def reliability(self) -> ReliabilityPolicy: ...
    @property
    def durability(self) -> DurabilityPolicy: ...


def reliable(depth: int) -> QoSProfile:
    """Nothing is lost, as long as no more than `depth` messages wait."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


RELIABLE = reliable(10)
# A late subscriber gets the last message, too.
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def matching(offers: Collection[Offer], depth: int) -> QoSProfile:
    """The best quality that all publishers can give; of none, that which every publisher can give."""
    all_reliable = bool(offers) and all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
    all_latched = bool(offers) and all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if all_reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if all_latched else DurabilityPolicy.VOLATILE,
    )
