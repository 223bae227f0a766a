# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla doctor`: options, output and exit code.

The command line imports this module for its options: everything that needs ROS is imported at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class Doctor:
    """Check robot, graph, model and machine before anything moves.

    Topics, joints, cameras, controllers, clocks, checkpoint: a table of ok, warn and fail, with the remedies. Observes,
    never commands. Exit code 0 when nothing is wrong, 1 for warnings under --strict, 2 for failures.

    $ qwen-vla doctor --robot widowx
    $ qwen-vla doctor --robot aloha --hardware real --policy out/train/aloha/model --strict
    $ qwen-vla doctor --robot widowx --offline --json out/doctor.json   # without a running robot
    $ qwen-vla doctor --robot my_robot.yaml --policy remote  # a robot of your own; the model is on another machine
    """

    robot: str
    """Name of a robot of the suite, or path of your embodiment YAML."""
    hardware: Literal["mujoco", "mock", "gazebo", "isaac", "real"] = "mujoco"
    """As in the launch file: a robot may have other topics in reality than in simulation."""
    policy: str = ""
    """Checkpoint: its folder, or the name of one in checkpoints/; or NAME://ADDRESS of an installed policy. `remote`:
    it is on another machine. Default: the one that policy_node has loaded, otherwise tiny."""
    namespace: str = ""
    """Namespace of the robot's nodes and topics."""
    seconds: float = 3.0
    """How long to observe the graph [s]."""
    offline: bool = False
    """Skip the graph: check only this machine, the ROS setup and the checkpoint."""
    strict: bool = False
    """Exit with code 1 if there are warnings."""
    json: Path | None = None
    """File for the findings."""
    overwrite: bool = False
    """Replace that file even if this command did not write it."""

    def run(self) -> int:
        from qwen_vla.output_files import write_json
        from qwen_vla.output_paths import check_files, with_maker
        from qwen_vla_ros.doctor import examination, table
        from qwen_vla_ros.doctor.checks.ros_setup import can_join
        from qwen_vla_ros.doctor.findings import exit_code

        if not 0.2 <= self.seconds <= 600:
            raise ValueError(f"seconds {self.seconds}: it must be 0.2 to 600 s")
        maker = "qwen-vla doctor"
        check_files(maker, self.overwrite, {"--json": self.json})
        patient = examination.find_patient(self.robot, self.hardware, self.namespace, self.policy)
        environment = examination.environment_of_nodes()
        setup = examination.examine_setup(patient, environment)
        online = not self.offline and can_join(setup)
        graph = examination.look_at_graph(patient, environment, self.seconds) if online else None
        findings = setup + list(examination.examine(patient, environment, graph))
        extent = "setup and running graph" if online else "setup only; the graph was skipped"
        table.show(f"{patient.config.name}: {extent}", findings)
        if self.json:
            write_json(self.json, with_maker(maker, table.as_json(patient.config.name, findings)))
        return exit_code(findings, self.strict)
