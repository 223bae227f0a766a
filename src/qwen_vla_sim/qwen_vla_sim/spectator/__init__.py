# SPDX-License-Identifier: Apache-2.0
"""Third-person pictures of simulated robots: where a spectator stands, its light, and what hides the robot from it."""
