# SPDX-License-Identifier: Apache-2.0
"""All kinds of training data as one union, for `data` in a recipe, and opening them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from qwen_vla.data.formats.spec import refuse_evaluation_scenes
from qwen_vla.data.label_ranges import share_ranges
from qwen_vla.data.language.chat import ChatData
from qwen_vla.data.language.questions import QuestionData
from qwen_vla.data.motions.motion_source import MotionData
from qwen_vla.data.navigation.navigation_source import NavigationData
from qwen_vla.data.navigation.trajectories import TrajectoryData
from qwen_vla.data.robot.hands import HandData
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SampleSource, SourceContext

AnyData = Annotated[
    RobotData | QuestionData | ChatData | NavigationData | TrajectoryData | HandData | MotionData,
    Field(discriminator="kind"),
]


def open_sources(specs: Sequence[AnyData], context: SourceContext) -> list[SampleSource]:
    """Open them in order; datasets with the same name of statistics share their ranges (`label_ranges`).

    DataError if one is recorded from scenes reserved for evaluation.
    """
    sources = []
    for spec in specs:
        source = spec.open(context)
        provenance = source.provenance()
        refuse_evaluation_scenes(provenance.get("seeds"), provenance.get("path"))
        sources.append(source)
    share_ranges(sources)
    return sources
