"""`qwen-vla doctor`: is everything as the robot and its policy need it? It listens and asks, and never commands.

The modules: `command` (options and order), `listener` (what the running graph says), `machine`, `ros_setup` and
`checkpoint` (what can be known without it), each of which fills the plain records of `facts`; the checks, by subject,
are functions from records to findings; `table` shows these.
"""
