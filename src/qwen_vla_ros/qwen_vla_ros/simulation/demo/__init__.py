"""`qwen-vla demo`: instructions for simulated robots, with a video and a summary."""
