# SPDX-License-Identifier: Apache-2.0
"""The mobile base: a differential drive with one camera, behind cmd_vel and odom."""
