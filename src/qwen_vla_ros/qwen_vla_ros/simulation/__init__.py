# SPDX-License-Identifier: Apache-2.0
"""The nodes with a simulated robot: the stack as processes, tasks, fault injection, measurements, the demo."""
