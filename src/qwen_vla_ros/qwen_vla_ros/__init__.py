# SPDX-License-Identifier: Apache-2.0
"""The nodes of the suite: observe, infer, gate, command and show. Modules that command a robot never import torch."""
