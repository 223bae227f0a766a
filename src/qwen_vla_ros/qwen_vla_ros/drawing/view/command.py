# SPDX-License-Identifier: Apache-2.0
"""The command `qwen-vla view`. ROS, rerun and matplotlib are imported when needed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tyro

if TYPE_CHECKING:
    from embodiment_descriptions import Embodiment
    from qwen_vla_ros.drawing.view.scene import Scene


MAKER = "qwen-vla view"  # as `output_paths` knows it


@dataclass
class View:
    """Show cameras, robot, joints, predicted, accepted and refused chunks, instruction and latency, live or from a bag.

    The viewer is rerun (pip install 'rerun-sdk>=0.41,<0.42'); --png works without it. Ctrl-C ends a live view.

    $ qwen-vla view                                        # the running graph, in the viewer
    $ qwen-vla view --save out/run.rrd --seconds 60        # on a machine without a display; then: rerun out/run.rrd
    $ qwen-vla view out/episodes/widowx_20261122-101500    # an episode of episode_recorder, or any rosbag2
    $ qwen-vla view my_bag --robot widowx --png out/chunk.png --chunk 12
    """

    bag: tyro.conf.Positional[Path | None] = None
    """A rosbag2 (folder or .mcap); by default, the running graph is shown."""
    save: Path | None = None
    """Write a file for the viewer instead of opening the viewer."""
    png: Path | None = None
    """Write an image of one chunk; without --save, no viewer is opened then."""
    chunk: int | None = None
    """Number of the chunk for --png; default: the last one."""
    robot: str | None = None
    """Without robot_description: name of a robot of the suite, or path of your embodiment YAML."""
    config: str = ""
    """Path of your embodiment YAML, with robot_description."""
    namespace: str = ""
    """Namespace of the robot; detected in a bag."""
    seconds: float = float("inf")
    """How long to show the running graph [s]; default: until Ctrl-C."""
    wait: float = 30.0
    """How long to wait for robot_description [s]."""
    image_rate: float = 5.0
    """Maximum number of images per camera and second."""
    overwrite: bool = False
    """Replace the files of --save and --png even if this command did not write them."""

    def run(self) -> int:
        """Show; the exit code is 0 when there was anything to show."""
        from qwen_vla.output_paths import check_files
        from qwen_vla_ros.simulation.interruption import signals_as_exceptions

        check_files(MAKER, self.overwrite, {"--save": self.save, "--png": self.png})
        if not self.seconds > 0 or not 0 < self.image_rate <= 100 or not self.wait >= 0:
            raise ValueError(
                "--seconds and --image-rate must be positive (at most 100 images per second), --wait not negative"
            )
        with signals_as_exceptions():
            return self._show_bag(self.bag) if self.bag is not None else self._show_live()

    # Sources --------------------------------------------------------------------------------------------------------

    def _show_bag(self, path: Path) -> int:
        from qwen_vla_ros.drawing.view.bag import Bag

        with (
            Bag(path, self.namespace) as bag,
            self._drawing(self._named() or bag.embodiment(self.config)) as drawing,
        ):
            count = bag.play(drawing.scene.feeds)
            if bag.damage:
                print(bag.damage, file=sys.stderr)
        return self._conclude(drawing, f"{count} messages")

    def _show_live(self) -> int:
        from qwen_vla_ros.drawing.view.live import live_graph
        from qwen_vla_ros.ros.embodiment_source import read_embodiment

        with live_graph(self.namespace) as graph:
            embodiment = self._named() or read_embodiment(graph.description(self.wait), self.config)
            with self._drawing(embodiment) as drawing:
                try:
                    graph.listen(drawing.scene.feeds)
                    for _ in graph.feed(self.seconds):
                        pass
                except KeyboardInterrupt:
                    pass  # ends the live view
        return self._conclude(drawing, "live")

    def _named(self) -> Embodiment | None:
        from embodiment_descriptions import load_robot

        return load_robot(self.robot) if self.robot else None

    # Drawing --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _drawing(self, embodiment: Embodiment) -> Iterator[Drawing]:
        from qwen_vla.output_files import complete_or_absent

        with ExitStack() as cleanup:
            save = self.save and cleanup.enter_context(complete_or_absent(self.save))
            viewer, image = self.png is None, self.png is not None
            yield cleanup.enter_context(Drawing(embodiment, self.image_rate, save, viewer, image))

    def _conclude(self, drawing: Drawing, what: str) -> int:
        chunks = drawing.scene.chunks
        print(f"{drawing.scene.embodiment.name}: {what}, {chunks} chunks")
        if self.save is not None:
            print(f"{self.save} ({self.save.stat().st_size / 1e6:.1f} MB): rerun {self.save}")
        if self.png is not None and drawing.image is not None:
            number = drawing.image.write(self.png, self.chunk, MAKER)
            print(f"{self.png}: chunk {number}")
        return 0 if chunks else 1


class Drawing:
    """A scene on one canvas or two; closed at the end of the context."""

    def __init__(self, embodiment: Embodiment, image_rate: float, save: Path | None, viewer: bool, image: bool) -> None:
        """Open what was requested: the viewer, unless a file or an image is requested instead."""
        from qwen_vla_ros.drawing.robot_shapes import RobotShapes
        from qwen_vla_ros.drawing.view.scene import Canvas, Scene

        shapes = RobotShapes(embodiment.urdf)
        self.image, self._rerun = None, None
        if save is not None or viewer:
            from qwen_vla_ros.drawing.view.rerun_canvas import RerunCanvas

            self._rerun = RerunCanvas(embodiment, shapes, save)
        if image:
            from qwen_vla_ros.drawing.view.image_canvas import ImageCanvas

            self.image = ImageCanvas(embodiment, shapes)
        canvases = [canvas for canvas in (self._rerun, self.image) if canvas is not None]
        everything = cast(Canvas, Canvases(canvases))  # passes every method on
        self.scene: Scene = Scene(embodiment, everything, image_rate)

    def __enter__(self) -> Drawing:
        """Return this drawing; everything is already open."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Write the rest."""
        if self._rerun is not None:
            self._rerun.close()


class Canvases:
    """Draws on several canvases at once."""

    def __init__(self, canvases: Iterable[Any]) -> None:
        """Use at least one canvas."""
        self._canvases = tuple(canvases)

    def __getattr__(self, name: str) -> Any:
        """The method of that name, on all canvases."""
        methods = [getattr(canvas, name) for canvas in self._canvases]

        def draw(*arguments: Any) -> None:
            for method in methods:
                method(*arguments)

        return draw
