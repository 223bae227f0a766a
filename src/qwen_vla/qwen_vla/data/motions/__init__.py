# SPDX-License-Identifier: Apache-2.0
"""Synthetic motions with the instructions that describe them."""
