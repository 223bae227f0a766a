# SPDX-License-Identifier: Apache-2.0
"""The entry of a recipe for recordings of a robot: where they are, how they are laid out, and what to do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.episodes import EpisodeSource, SourceOptions
from qwen_vla.data.formats.lerobot import download
from qwen_vla.data.formats.named_robot import NamedRobot, load
from qwen_vla.data.formats.opening import find_source, open_source, robot_of
from qwen_vla.data.formats.spec import DataSpec, OnBadRows
from qwen_vla.data.robot.robot_columns import Columns
from qwen_vla.data.robot.robot_recording import RobotRecording

HUB = "hub:"


class RobotDataset(DataSpec):
    """Demonstrations, or single labeled frames without actions, of one robot."""

    kind: Literal["robot"] = "robot"
    path: Annotated[str, BeforeValidator(str)] = Field(
        description="LeRobotDataset v3.0 (a folder, or hub:organization/name, which is downloaded), a bag, a folder of "
        "bags, or what an installed episode source recognizes"
    )
    robot: NamedRobot | None = Field(
        default=None,
        description="name, path of an embodiment YAML, or both files; default: the robot named by the dataset",
    )
    statistics: str | None = Field(
        default=None,
        description="name of its normalization statistics; default: the robot's name. Data sets with the same name "
        "share a range that contains those of all",
    )
    cameras: dict[str, str] = Field(
        default={}, description="image column by camera tag; default: observation.images.TAG"
    )
    columns: Columns = Columns()
    bag: SourceOptions = Field(default=SourceOptions(), description="what the recording does not define itself")
    on_bad_rows: OnBadRows = Field(default="refuse", description="what to do with unusable rows; both report them")
    use_images: bool = Field(default=True, description="False: no images, even in a stage with vision")
    use_state: bool = Field(default=True, description="False: no state, even for a model with proprioception")
    relative_actions: bool = Field(
        default=False, description="chunks of joint positions are relative to the joints measured at their start"
    )
    color_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="strength of random changes of the colors of training images; 0.2 is moderate",
    )
    other_prompts: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the training samples whose prompt names another robot of the suite: there this one must "
        "hold still, so that the model must read the prompt's robot",
    )

    def open_recording(self, images: bool = True) -> tuple[RobotRecording, Embodiment]:
        """The recordings with their columns, and the robot at its own rate; `images` as in `open_episodes`."""
        source, embodiment = self.open_episodes(images)
        recording = RobotRecording(source, embodiment, self.columns, self.cameras, self.relative_actions)
        return recording, embodiment

    def open_episodes(self, images: bool = True) -> tuple[EpisodeSource, Embodiment]:
        """The recordings and the robot that made them. images: whether they must have the images of its cameras."""
        path = download(self.path.removeprefix(HUB)) if self.path.startswith(HUB) else Path(self.path)
        source = find_source(path)
        embodiment = load(self.robot) if self.robot else robot_of(source, path)
        seen = embodiment if images else embodiment.model_copy(update={"cameras": ()})
        return open_source(source, path, seen, self.bag), embodiment
