# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes a bag has, it is read or refused: no other exception, no endless work, bounded memory."""

from __future__ import annotations

import resource
import shutil
import signal
import time

import numpy as np
import pytest
import zstandard
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from test_foreign_bags import rechunked
from test_rosbag import SAY, START, WIDOWX, Bag, S, picture

from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.rosbag import RosbagEpisodes

INPUTS, AT_ONCE = 10_000, 1_000
LONGEST, MOST_MEMORY = 2.0, 1 << 30  # [s] of CPU, [bytes]
ROBOT = WIDOWX.model_copy(update={"cameras": WIDOWX.cameras[:1]})
INTERESTING = np.array([0, 1, 0x7F, 0x80, 0xFE, 0xFF], np.uint8)


class Late(BaseException):
    """Not an Exception, which a reader may expect from a library."""


def too_late(*_):
    raise Late


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Small bags of all kinds of storage."""
    folder = tmp_path_factory.mktemp("originals")
    kinds = {
        "mcap": (StoragePlugin.MCAP, None),
        "sqlite": (StoragePlugin.SQLITE3, None),
        "message": (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        "chunk": (StoragePlugin.MCAP, CompressionMode.STORAGE),
    }
    for name, (plugin, mode) in kinds.items():
        bag = Bag(folder / name, plugin)
        if mode:
            bag.writer.set_compression(mode, CompressionFormat.ZSTD)
        with bag:
            small(bag)
    rechunked(folder / "mcap", folder / "chunks", 2_000)
    packed = folder / "file"
    packed.mkdir()
    content = next((folder / "mcap").glob("*.mcap")).read_bytes()
    (packed / "file_0.mcap.zstd").write_bytes(zstandard.compress(content))
    return sorted(path for path in folder.iterdir())


def small(bag):
    """Half a second, with everything that is read of a bag."""
    bag.text("task", START, "lift it")
    bag.trajectory(ROBOT.commands[0].topic, START, ROBOT.arms[0].joints, [(0.1, np.zeros(6)), (0.3, np.ones(6) / 4)])
    for k in range(10):
        bag.joints(START + k * S // 20, np.full(7, 0.01 * k))
        bag.image("ego/image_raw", START + k * S // 20, picture(k)[:4, :4].copy())


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, a part cut out, repeated, or exchanged for others."""
    data = np.frombuffer(content, np.uint8).copy()
    for _ in range(int(rng.integers(1, 5))):
        if len(data) < 16:
            break
        begin, length = int(rng.integers(len(data))), int(2 ** rng.uniform(0, 8))
        part = data[begin : begin + length]
        match rng.integers(7):
            case 0:
                data[begin] ^= 1 << rng.integers(8)
            case 1:
                part[:] = rng.integers(0, 256, len(part))
            case 2:
                part[:8] = rng.choice(INTERESTING)
            case 3:
                data = np.concatenate([data[:begin], data[begin + length :]])
            case 4:
                data = np.concatenate([data[:begin], part, data[begin:]])
            case 5:
                data = data[: max(begin, 16)]
            case 6:
                other = int(rng.integers(len(data)))
                part[: len(data[other : other + length])] = data[other : other + length][: len(part)]
    return data.tobytes()


def attempt(path) -> str:
    """Read a bag to the end, and say what is wrong with how it went; empty when it was read or refused."""
    begun = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        for episode in RosbagEpisodes(path, ROBOT, SAY):
            for row in range(len(episode)):
                try:
                    _ = episode.images["ego"][row]
                except DatasetError:
                    continue
    except DatasetError:
        pass
    except Late:
        return f"no end within {time.process_time() - begun:.1f} s"
    except Exception as error:  # what this test looks for
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, INPUTS, AT_ONCE))
def test_a_mutated_bag_is_read_or_refused(originals, tmp_path, first):
    findings, before, begun = [], signal.signal(signal.SIGPROF, too_late), time.monotonic()
    try:
        for seed in range(first, first + AT_ONCE):
            rng = np.random.default_rng(seed)
            bag = shutil.copytree(originals[seed % len(originals)], tmp_path / f"bag{seed}")
            files = sorted(bag.iterdir(), key=lambda file: file.name == "metadata.yaml")
            file = files[-1 if rng.uniform() < 0.1 else 0]  # metadata sometimes, messages most often
            file.write_bytes(mutated(file.read_bytes(), rng))
            if why := attempt(bag):
                findings.append(f"seed {seed} ({bag.name}, {file.name}): {why}")
            shutil.rmtree(bag)
    finally:
        signal.signal(signal.SIGPROF, before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"seeds {first}…{first + AT_ONCE - 1}: {time.monotonic() - begun:.0f} s, peak {peak / 1e6:.0f} MB, {findings}"
    )
    assert not findings
    assert peak < MOST_MEMORY
