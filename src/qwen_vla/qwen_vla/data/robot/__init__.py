# SPDX-License-Identifier: Apache-2.0
"""Recordings of robots and human hands as training samples."""
