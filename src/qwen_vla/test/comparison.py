# SPDX-License-Identifier: Apache-2.0
"""How alike two results of a model have to be, and why: the one place for these tolerances.

A kernel adds up in the order that suits the shape, the address in memory, the number of threads and the processor. So
the same mathematics done in two ways agrees up to rounding: a float32 is kept to 1.2e-7 of itself, the sum of some
hundred to some 1e-6 of the largest. `torch.equal` is for what is copied, chosen, counted, drawn or read back, and for
what is promised bit for bit on one machine: a seeded chunk, a saved and loaded model, training that is resumed.
"""

import torch

ROUNDING = 1e-5  # of the largest number: ten times what was ever seen, a thousandth of what a mistake makes


def assert_alike(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The same mathematics, done in another way or once more."""
    largest = expected.detach().abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0.0, atol=ROUNDING * largest)


def differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results are further apart than rounding could bring them, by a factor of ten."""
    return (one - other).abs().max().item() > 10 * ROUNDING * other.abs().max().item()
