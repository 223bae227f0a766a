# SPDX-License-Identifier: Apache-2.0
"""The checks, one module per subject: the fact, the fault, and the remedy."""
