# SPDX-License-Identifier: Apache-2.0
"""The model: configuration, processor, backbone with action expert, flow matching, and acceleration."""
