# SPDX-License-Identifier: Apache-2.0
"""The cost of a recipe before it is trained: memory counted, speed measured or counted."""
