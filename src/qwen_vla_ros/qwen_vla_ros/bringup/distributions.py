"""The ROS distributions that the suite names, and what differs between them for the bring-up. Free of `launch`."""

DISTRIBUTIONS = ("jazzy", "kilted", "lyrical")
