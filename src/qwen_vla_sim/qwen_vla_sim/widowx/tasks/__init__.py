# SPDX-License-Identifier: Apache-2.0
"""The tasks on the WidowX's table, one module each."""
