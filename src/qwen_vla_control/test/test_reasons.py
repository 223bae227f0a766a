# SPDX-License-Identifier: Apache-2.0
"""What the gate says: numbers that are published, and every reason once."""

from __future__ import annotations

import pytest

from qwen_vla_control.reasons import Reason, Refused, Violation, refuse_if


def test_every_reason_has_a_number_of_its_own_and_none_is_left_out():
    """Iteration over an enumeration skips names that repeat a number, so that these are looked at."""
    assert [reason.value for reason in Reason.__members__.values()] == list(range(1, len(Reason.__members__) + 1))


def test_violations_are_told_once_and_in_the_order_in_which_they_were_found():
    far, fast = Violation(Reason.STEP_JUMP, "too far"), Violation(Reason.VELOCITY_LIMIT, "too fast")
    refused = Refused([far, fast, far, Violation(Reason.STEP_JUMP, "farther")])
    assert refused.reasons == (Reason.STEP_JUMP, Reason.VELOCITY_LIMIT)
    assert [violation.message for violation in refused.violations] == ["too far", "too fast", "farther"]
    assert str(refused) == "too far; too fast; farther"


def test_one_reason_is_enough_to_refuse():
    refused = Refused.because(Reason.STALE, "too old")
    assert refused.violations == (Violation(Reason.STALE, "too old"),)
    with pytest.raises(Refused, match="too old"):
        refuse_if([*refused.violations])


def test_nothing_is_refused_without_a_reason():
    refuse_if([])
