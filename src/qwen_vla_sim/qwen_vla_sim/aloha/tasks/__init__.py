# SPDX-License-Identifier: Apache-2.0
"""ALOHA's tasks, one module each."""
