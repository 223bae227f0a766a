# SPDX-License-Identifier: Apache-2.0
"""One dataset of a robot, opened and checked: columns, instructions, cameras, bad rows. No model and no training here.

Training and `qwen-vla inspect` judge a dataset by this class; what it refuses, both refuse.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.bad_rows import BadRows
from qwen_vla.data.formats.episodes import DatasetError, Episode, EpisodeSource
from qwen_vla.data.formats.spec import clean_text
from qwen_vla.data.robot.chunks import episode_ends
from qwen_vla.data.robot.robot_columns import ColumnReader, Columns, RobotColumns

IMAGE_PREFIX = "observation.images."


class RobotRecording:
    """A dataset and what each of its columns is.

    embodiment: at the rate of the data. ends, episode_of (N,): past-last row, and number, of every row's episode.
    instructions (N,): as the robot is told them. cameras: image column by tag, as given in a recipe.
    """

    def __init__(
        self,
        source: EpisodeSource,
        embodiment: Embodiment,
        columns: Columns,
        cameras: Mapping[str, str],
        relative: bool = False,
    ) -> None:
        """DatasetError: a column that is needed is missing."""
        self.source, self.cameras = source, cameras
        self.embodiment = embodiment.model_copy(update={"rate_hz": source.rate_hz})
        self.episodes = source.episodes
        lengths = np.diff(self.episodes, axis=1)[:, 0]
        self.ends = episode_ends(self.episodes)
        self.episode_of = np.repeat(np.arange(len(self.episodes)), lengths)
        self.instructions = np.array([text for e in source for text in e.row_instructions], dtype=object)
        self.reader = ColumnReader(source, self.embodiment, columns, relative)

    def __len__(self) -> int:
        return len(self.ends)

    def read(self) -> RobotColumns:
        """State and targets of all rows."""
        return self.reader.all_columns(self.ends)

    def check_columns(self) -> None:
        """DatasetError if a column is not understood, or cannot be the robot's, such as degrees taken for radians."""
        if self.reader.errors:
            raise self.reader.errors[0]
        for column in self.reader.maps:
            self.check_column(column)

    def check_column(self, column: str) -> None:
        """DatasetError if most values of a column are outside the robot's limits."""
        values = np.concatenate([self.reader.values(episode, column) for episode in self.source])
        self.reader.ranges[column].refuse_column(values, f"{self.source.root}: {column}")

    def bad_rows(self) -> BadRows:
        """Rows that cannot be used, images aside."""
        bad = BadRows()
        for episode, (first, _) in zip(self.source, self.episodes, strict=True):
            self._add_bad_rows(episode, int(first), bad)
        return bad

    def image_key(self, tag: str) -> str:
        """The image column of a camera; DatasetError if there is none, or it has no color images."""
        keys = self.source.image_keys
        wanted = (self.cameras[tag],) if tag in self.cameras else (IMAGE_PREFIX + tag, tag)
        for key in wanted:
            if key in keys:
                self.source.check_camera(key)
                return key
        raise DatasetError(
            f"has no camera {wanted[0]}; it has {', '.join(keys) or 'none'}",
            where=str(self.source.root),
            remedy=f"name the column of {tag!r} under `cameras`",
        )

    def _add_bad_rows(self, episode: Episode, first: int, bad: BadRows) -> None:
        used = self.reader.used
        for column, rows in episode.defects.items():
            if column in used or column == "observation":
                for row, why in rows.items():
                    bad.add(first + row, episode.place(row), why if column == "observation" else f"{column} {why}")
        for column in used:
            bad.add_not_finite(episode.columns[column].values, first, column, episode.place)
        for column, ranges in self.reader.ranges.items():
            for row, why in ranges.rows_outside(self.reader.values(episode, column), column).items():
                bad.add(first + row, episode.place(row), why)
        if "timestamp" in episode.columns:
            bad.add_gaps(episode.columns["timestamp"].values[:, 0], episode.rate_hz, first, episode.place)
        for row, why in unclear_instructions(episode).items():
            bad.add(first + row, episode.place(row), why)


def unclear_instructions(episode: Episode) -> dict[int, str]:
    """By row, why its instruction cannot be told to a model."""
    faults: dict[str, str] = {}
    for text in dict.fromkeys(episode.row_instructions):
        try:
            clean_text(text)
        except ValueError as error:
            faults[text] = f"instruction: {error}"
    return {row: faults[text] for row, text in enumerate(episode.row_instructions) if text in faults} if faults else {}
