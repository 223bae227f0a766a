"""episode_recorder: what a robot sees, does and is told, one folder per episode."""
