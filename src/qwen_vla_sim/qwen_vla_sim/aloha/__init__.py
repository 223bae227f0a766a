# SPDX-License-Identifier: Apache-2.0
"""ALOHA: two arms at a table, its bimanual tasks and their expert."""
