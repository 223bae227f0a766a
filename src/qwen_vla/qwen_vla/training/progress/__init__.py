# SPDX-License-Identifier: Apache-2.0
"""Progress of a run: its log, and its loss curve."""
