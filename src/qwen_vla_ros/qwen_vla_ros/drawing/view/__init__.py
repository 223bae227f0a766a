# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla view`: visualization without RViz, live or from a bag, in the rerun viewer or as an image."""
