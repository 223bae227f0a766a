# SPDX-License-Identifier: Apache-2.0
"""What a step is trained on: its rows as tensors, made sample by sample or gathered from data on the device."""
