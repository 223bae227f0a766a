"""rclpy as every node of the suite uses it: whatever arrives, the node goes on, and says what was wrong with it."""

from qwen_vla_rclpy.guarded_executor import GuardedExecutor
from qwen_vla_rclpy.guarded_node import GuardedNode
from qwen_vla_rclpy.printable import printable

__all__ = ["GuardedExecutor", "GuardedNode", "printable"]
