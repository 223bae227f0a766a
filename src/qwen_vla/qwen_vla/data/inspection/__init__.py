# SPDX-License-Identifier: Apache-2.0
"""What is understood of a dataset before anybody trains on it: `qwen-vla inspect`."""
