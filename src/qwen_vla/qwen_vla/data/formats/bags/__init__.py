# SPDX-License-Identifier: Apache-2.0
"""Inside a rosbag2: its files, types and messages, their time, commands, and what is understood of them."""
