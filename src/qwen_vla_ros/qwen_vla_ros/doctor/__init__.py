# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla doctor`: checks that everything is as the robot and its policy need it. It observes and never commands.

The modules: `command` (options and order), `listener` (facts of the running graph), `machine`, `ros_setup` and
`checkpoint` (facts without the graph), each of which fills the plain records of `facts`; the checks, by subject, are
functions from records to findings; `table` prints these.
"""
