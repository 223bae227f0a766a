# SPDX-License-Identifier: Apache-2.0
"""A subscription gets the best that all publishers offer, and hears every one of them."""

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from qwen_vla_rclpy.qos import LATCHED, RELIABLE, matching, reliable

SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
FADING = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.mark.parametrize(
    ("offers", "best"),
    [
        ([RELIABLE], RELIABLE),
        ([LATCHED], LATCHED),
        ([LATCHED, RELIABLE], RELIABLE),
        ([LATCHED, SENSOR], SENSOR),
        ([LATCHED, FADING], FADING),
        ([], SENSOR),
    ],
)
def test_the_best_that_all_offer_is_asked_for(offers: list[QoSProfile], best: QoSProfile) -> None:
    wanted = matching(offers, 7)
    assert (wanted.reliability, wanted.durability, wanted.depth) == (best.reliability, best.durability, 7)
    for offer in offers:  # whoever asks for more than a publisher offers does not hear it
        assert wanted.reliability in (offer.reliability, ReliabilityPolicy.BEST_EFFORT)
        assert wanted.durability in (offer.durability, DurabilityPolicy.VOLATILE)


def test_depth_is_how_many_may_wait() -> None:
    assert reliable(50).depth == 50 and reliable(50).reliability == ReliabilityPolicy.RELIABLE
