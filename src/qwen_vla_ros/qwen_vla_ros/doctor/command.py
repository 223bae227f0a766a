"""`qwen-vla doctor`: the options, and what is printed and returned.

The command line imports this module to say what it offers: everything that needs ROS is imported when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class Doctor:
    """Check robot, graph, model and machine before anything moves.

    Topics, joints, cameras, controllers, clocks, checkpoint: a table of ok, warn and fail, with the way out
    of each. Listens and asks, never commands. Exit code 0 when nothing is wrong, 1 for warnings under --strict, 2 for a
    failure.

    $ qwen-vla doctor --robot widowx
    $ qwen-vla doctor --robot aloha --hardware real --policy out/train/aloha/model --strict
    $ qwen-vla doctor --robot widowx --offline --json out/doctor.json   # without a running robot
    $ qwen-vla doctor --robot my_robot.yaml --policy remote  # a robot of your own; the model on another machine
    """

    robot: str
    """Name of a robot of the suite, or path of your embodiment YAML."""
    hardware: Literal["mujoco", "mock", "gazebo", "isaac", "real"] = "mujoco"
    """As in the launch file: a robot may have other topics in reality than in simulation."""
    policy: str = ""
    """Checkpoint: its folder, or the name of one in checkpoints/. Or NAME://ADDRESS of an installed policy. `remote`:
    it is on another machine. Default: the one that policy_node has loaded, else tiny."""
    namespace: str = ""
    """Namespace of the robot's nodes and topics."""
    seconds: float = 3.0
    """How long to listen."""
    offline: bool = False
    """Leave out the graph: this machine, the ROS set-up and the checkpoint only."""
    strict: bool = False
    """Exit with 1 when there are warnings."""
    json: Path | None = None
    """Where to write the findings."""
    overwrite: bool = False
    """Replace such a file even when this command did not make it."""

    def run(self) -> int:
        from qwen_vla.output_files import write_json
        from qwen_vla.output_paths import check_files, with_maker
        from qwen_vla_ros.doctor import examination, table
        from qwen_vla_ros.doctor.checks.ros_setup import can_join
        from qwen_vla_ros.doctor.findings import exit_code

        if not 0.2 <= self.seconds <= 600:
            raise ValueError(f"seconds {self.seconds}: give 0.2 to 600 s to listen")
        maker = "qwen-vla doctor"
        check_files(maker, self.overwrite, {"--json": self.json})
        patient = examination.find_patient(self.robot, self.hardware, self.namespace, self.policy)
        environment = examination.environment_of_nodes()
        setup = examination.examine_setup(patient, environment)
        online = not self.offline and can_join(setup)
        graph = examination.look_at_graph(patient, environment, self.seconds) if online else None
        findings = setup + list(examination.examine(patient, environment, graph))
        extent = "set-up and running graph" if online else "set-up only; the graph was not looked at"
        table.show(f"{patient.config.name}: {extent}", findings)
        if self.json:
            write_json(self.json, with_maker(maker, table.as_json(patient.config.name, findings)))
        return exit_code(findings, self.strict)
