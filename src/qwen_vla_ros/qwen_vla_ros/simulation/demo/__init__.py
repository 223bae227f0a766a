# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla demo`: instructions for simulated robots, with a video and a summary."""
