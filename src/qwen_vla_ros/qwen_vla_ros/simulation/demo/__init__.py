"""`qwen-vla demo`: instructions to simulated robots, with a video and a summary."""
