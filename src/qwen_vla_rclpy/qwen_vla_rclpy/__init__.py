"""rclpy as every node of the suite uses it: whatever arrives, the node goes on, and says what was wrong with it."""
