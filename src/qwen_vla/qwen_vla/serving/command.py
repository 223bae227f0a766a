# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla serve`: the options of the server. Light: heavy modules are imported when it runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from qwen_vla.option_ranges import PORTS, Count, CountOrDefault, Range


@dataclass
class Serve:
    """Serve a policy over the network: observations in, chunks out.

    One policy for one robot and any number of clients, whose requests are served in turn, or in a batch if they
    coincide, until Ctrl-C or SIGTERM. It speaks openpi's protocol and, on separate ports, those of vla-eval and GR00T.
    ROS is not needed. The server neither moves nor guards a robot: that is the client's responsibility.

    $ qwen-vla serve --robot widowx
    $ qwen-vla serve --checkpoint checkpoints/tiny --robot widowx --port 8123
    $ QWEN_VLA_API_KEY=secret qwen-vla serve --robot my_robot.urdf --config my_robot.yaml --host 0.0.0.0
    $ qwen-vla serve --robot widowx --vla-eval-port 8001 --groot-port 5555 --camera-names front=ego
    $ qwen-vla serve --policy mock://hold --robot aloha    # without a model, to try a client
    """

    robot: str
    """Name of a robot of the suite, or path of an embodiment YAML or a URDF."""
    policy: Annotated[str, tyro.conf.arg(aliases=["--checkpoint"])] = "tiny"
    """Checkpoint: its folder, or the name of one in checkpoints/. Or NAME://ADDRESS of an installed policy."""
    config: Path | None = None
    """Embodiment YAML for a URDF."""
    hardware: Literal["mock", "gazebo", "isaac", "real"] = "mock"
    """Hardware or simulator of a robot of the suite; the real one may have other cameras."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all interfaces. Nothing is encrypted."""
    port: Annotated[int, PORTS] = 8000
    """Port of openpi's protocol (websocket); 0: any free one."""
    vla_eval_port: Annotated[int | None, PORTS] = None
    """Also speak the protocol of vla-eval (websocket), on this port."""
    groot_port: Annotated[int | None, PORTS] = None
    """Also speak GR00T's protocol (ZeroMQ), on this port; for trusted networks only."""
    camera_names: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=TAG …")] = ()
    """Clients' names of cameras, where they differ from the policy's tags: NAME=TAG, for example front=ego."""
    api_key: str = ""
    """Key that clients must send as Authorization: Api-Key; default: environment variable QWEN_VLA_API_KEY, or none."""
    clients: Count = 32
    """Maximum number of connected clients."""
    frame_mb: Annotated[float, Range(0.01, 4096)] = 16.0
    """Largest accepted message [MiB]."""
    largest_batch: CountOrDefault = 0
    """Maximum batch of requests; 0: 8 on a GPU, 1 on a CPU, where batches are no faster."""
    device: str = "cpu"
    """Device: cpu, cuda, cuda:1 …"""
    threads: CountOrDefault = 0
    """CPU threads; 0: PyTorch's default."""

    def run(self) -> int:
        from qwen_vla.policies import PolicyOptions
        from qwen_vla.robots import find_robot
        from qwen_vla.serving.server import ServeOptions, serve
        from qwen_vla.serving.websocket_listener import Limits

        embodiment = find_robot(self.robot, self.config, self.hardware)
        key = self.api_key or os.environ.get("QWEN_VLA_API_KEY", "")
        limits = Limits(int(self.frame_mb * 2**20), self.clients)
        names = {given: tag for given, _, tag in (name.partition("=") for name in self.camera_names)}
        if wrong := [name for name in self.camera_names if not all(name.partition("="))]:
            raise ValueError(f"--camera-names must be NAME=TAG, for example front=ego; got {wrong[0]!r}")
        ports = (self.port, self.vla_eval_port, self.groot_port)
        options = ServeOptions(self.host, *ports, key, self.largest_batch, names, limits)
        serve(self.policy, embodiment, options, PolicyOptions(device=self.device, threads=self.threads))
        return 0
