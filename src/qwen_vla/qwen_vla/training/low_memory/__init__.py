# SPDX-License-Identifier: Apache-2.0
"""Adapters, 8-bit optimizer states and 4-bit weights: fine-tuning of a large model on one GPU."""
