"""What is understood of a dataset before anybody trains on it: `qwen-vla inspect`."""
