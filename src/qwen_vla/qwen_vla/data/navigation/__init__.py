# SPDX-License-Identifier: Apache-2.0
"""Navigation and trajectory data as training samples."""
