# SPDX-License-Identifier: Apache-2.0
"""Labels keep their range: of their own data, shared by the data sets of a robot, and never clipped in silence."""

import json
import re

import numpy as np
import pytest

from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.label_ranges import clipped_shares, refuse_other_ranges
from qwen_vla.data.navigation.navigation_source import NavigationData
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla.data.sources import open_sources
from qwen_vla.model.normalization import Quantiles

CONFIG = QwenVLAConfig.preset("tiny")
KINDS = ("demonstrations", "snapshots")


def walk(path, stride: float, seed: int = 0):
    """A base that walks back and forth by normally distributed steps of `stride` m; these are its labels."""
    rng = np.random.default_rng(seed)
    poses = np.cumsum(np.stack([stride * rng.normal(size=4000), np.zeros(4000), np.zeros(4000)], axis=1), axis=0)
    row = {"instruction": "go on", "rate_hz": 2, "poses": poses.tolist()}
    path.write_text(f"{json.dumps(row)}\n" * 2)
    return NavigationData(kind="navigation", path=path)


def test_a_data_set_with_twice_the_spread_is_not_taught_the_range_of_the_checkpoint(tmp_path):
    """Normal labels of twice the spread: 2·(1 − Φ(2.326 / 2)) = 24.5 % of them would be pinned."""
    (known,) = open_sources([walk(tmp_path / "a.jsonl", 0.1)], SourceContext(CONFIG))
    wide = walk(tmp_path / "b.jsonl", 0.2, seed=1)
    (own,) = open_sources([wide], SourceContext(CONFIG))
    assert clipped_shares([own], [1.0])[0]["navigation"]["dx"] == pytest.approx(0.02, abs=0.01)
    (kept,) = open_sources([wide], SourceContext(CONFIG, normalization=known.statistics))
    with pytest.raises(DataError, match=r"'navigation' clip more than 5% of the labels of dx (\d+)%") as refusal:
        clipped_shares([kept], [1.0])
    assert float(re.search(r"dx (\d+)%", str(refusal.value))[1]) == pytest.approx(24.5, abs=2)
    assert "normalization: {navigation: keep}" in str(refusal.value)


def test_one_task_may_need_the_ends_of_a_range_that_is_the_whole_mixtures(tmp_path):
    """Of normal labels of 1.6 and 2 times the spread 2·(1 − Φ(2.326 / 1.6)) = 14.6 % and 24.5 % are clipped."""
    usual, wide = walk(tmp_path / "usual.jsonl", 0.1), walk(tmp_path / "wide.jsonl", 0.16, seed=1)
    (known,) = open_sources([usual], SourceContext(CONFIG))
    context = SourceContext(CONFIG, normalization=known.statistics)
    sources = open_sources([usual, wide], context)
    shares = [found["navigation"]["dx"] for found in clipped_shares(sources, [0.85, 0.15])]
    assert shares == pytest.approx([0.02, 0.146], abs=0.02)
    with pytest.raises(DataError, match="^the mixture, most of all navigation wide: .* more than 5% .* of dx [89]%"):
        clipped_shares(sources, [0.5, 0.5])
    with pytest.raises(DataError, match="^navigation wide: .* clip more than 5% .* of dx 1[3456]%"):
        clipped_shares(sources[1:], [1.0])
    wider = open_sources([usual, walk(tmp_path / "wider.jsonl", 0.2, seed=1)], context)
    with pytest.raises(DataError, match="^navigation wider: .* clip more than 20% .* of dx 2[3456]%"):
        clipped_shares(wider, [0.95, 0.05])


@pytest.mark.parametrize(("factor", "refused"), [(1000.0, True), (57.3, True), (4.0, False)])
def test_a_range_kept_from_a_checkpoint_of_another_unit_is_refused(tmp_path, factor: float, refused: bool) -> None:
    """Meters would fill a thousandth of a range in millimeters, and be taught as standing still."""
    spec = walk(tmp_path / "a.jsonl", 0.1)
    (own,) = open_sources([spec], SourceContext(CONFIG))
    found = own.statistics["navigation"]
    wide = {"navigation": Quantiles(found.q01 * factor, found.q99 * factor, found.channel_names)}
    (kept,) = open_sources([spec], SourceContext(CONFIG, normalization=wide))
    clipped_shares([kept], [1.0])
    refuse_other_ranges(kept, ())
    if not refused:
        return refuse_other_ranges(kept, wide)
    with pytest.raises(DataError, match=r"fill less than 3% of the range .* 'navigation': dx 0\.4\d+ of \d+"):
        refuse_other_ranges(kept, wide)


def test_statistics_kept_from_a_checkpoint_must_be_of_the_same_channels(tmp_path):
    spec = walk(tmp_path / "a.jsonl", 0.1)
    (own,) = open_sources([spec], SourceContext(CONFIG))
    found = own.statistics["navigation"]
    for names in (("dy", "dx", "dtheta"), ("x", "y", "z", "rx", "ry", "rz", "gripper")):
        other = Quantiles(np.resize(found.q01, len(names)), np.resize(found.q99, len(names)), names)
        with pytest.raises(DataError, match=f"'navigation' are of the channels {' '.join(names)}, this data has dx dy"):
            open_sources([spec], SourceContext(CONFIG, normalization={"navigation": other}))


def test_data_sets_of_one_robot_share_the_range_of_all(tmp_path):
    specs = [walk(tmp_path / "a.jsonl", 0.1), walk(tmp_path / "b.jsonl", 0.2, seed=1)]
    alone = [open_sources([spec], SourceContext(CONFIG))[0].statistics["navigation"] for spec in specs]
    together = open_sources(specs, SourceContext(CONFIG))
    for source, shares in zip(together, clipped_shares(together, [0.5, 0.5]), strict=True):
        found = source.statistics["navigation"]
        np.testing.assert_array_equal(found.q01, np.minimum(alone[0].q01, alone[1].q01))
        np.testing.assert_array_equal(found.q99, np.maximum(alone[0].q99, alone[1].q99))
        assert shares["navigation"]["dx"] <= 0.025
        physical = source.label(int(source.training[0])).values
        np.testing.assert_allclose(found.normalize(physical), source.sample(source.training[0], None).actions)


def test_ranges_of_different_channels_are_not_shared():
    one, other = (Quantiles([0.0], [1.0], (name,)) for name in ("x", "y"))
    with pytest.raises(ValueError, match="channels .*x.* and .*y.* differ"):
        one.united(other)
    same = one.united(Quantiles([-1.0], [0.5], ("x",)))
    assert (same.q01, same.q99) == ([-1.0], [1.0])


def test_what_is_outside_is_what_normalizing_clips():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3))
    found = Quantiles.from_data(values)
    clipped = np.abs(2 * (values - found.q01) / (found.q99 - found.q01) - 1) > 1
    np.testing.assert_array_equal(found.is_outside(values), clipped)
    assert clipped.mean() == pytest.approx(0.02, abs=0.005)


def test_frames_without_actions_have_no_labels_to_compare_with_what_was_kept(recordings):
    """Snapshots beside demonstrations whose statistics are those of the checkpoint."""
    demonstrations, snapshots = (RobotData(kind="robot", path=str(recordings / name)) for name in KINDS)
    (known,) = open_sources([demonstrations], SourceContext(CONFIG))
    kept = open_sources([demonstrations, snapshots], SourceContext(CONFIG, normalization=known.statistics))
    for source in kept:
        refuse_other_ranges(source, known.statistics)
    assert [bool(shares) for shares in clipped_shares(kept, [0.5, 0.5])] == [True, False]
