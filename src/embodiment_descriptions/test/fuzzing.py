# SPDX-License-Identifier: Apache-2.0
"""Feeds damaged files to a reader: no other exception than those it declares, no hang, no memory beyond a limit."""

from __future__ import annotations

import copy
import json
import random
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

INPUTS = 10_000
LONGEST = 2.0  # [s] of processor time for one input
MOST_MEMORY = 1e9  # [bytes] of the process
LONGEST_MESSAGE = 20_000  # [characters]
NASTY = (None, True, False, 0, -1, 1, 2, 10**6, 10**30, -(10**30), 0.5, -0.0, 1e300, 1e-300, float("nan"), float("inf"))
NASTY += ("", "a", "1e6", "../../etc/passwd", "/", "\x00\x1b[31m", "{a.__class__}", "ü" * 500, "\ud800", [], {}, [[]])
NASTY += ([1] * 1000, {"a": {"a": {"a": 1}}}, "evil/kernel", "tag:yaml.org,2002:python/object")


def fuzz(
    what: str,
    read: Callable[[bytes], object],
    expected: tuple[type[Exception], ...],
    make: Callable[[random.Random], bytes],
    inputs: int = INPUTS,
) -> None:
    """Read `inputs` inputs, make(random) -> bytes of seed 0, 1, …; prints figures, and seeds of what was found."""
    before, began, slowest, endings, findings = peak(), time.perf_counter(), (0.0, 0), Counter(), []
    for seed in range(inputs):
        data, start = make(random.Random(seed)), time.process_time()
        try:
            read(data)
            endings["read"] += 1
        except expected as error:
            endings[type(error).__name__] += 1
            if len(str(error)) > LONGEST_MESSAGE:
                findings.append((seed, f"a message of {len(str(error))} characters"))
        except Exception:
            findings.append((seed, traceback.format_exc(limit=-3)))
        slowest = max(slowest, (time.process_time() - start, seed))
    seconds, most = time.perf_counter() - began, peak()
    print(
        f"\n{what}: {inputs} inputs (seeds 0..{inputs - 1}) in {seconds:.0f} s, slowest {slowest[0]:.2f} s (seed "
        f"{slowest[1]}), peak memory {most / 1e6:.0f} MB (+{(most - before) / 1e6:.0f}), {dict(endings)}, "
        f"{len(findings)} findings"
    )
    shown = "\n".join(f"seed {seed}: {text}" for seed, text in findings[:5])
    assert not findings, f"{len(findings)} findings:\n{shown}"
    assert slowest[0] < LONGEST and most < MOST_MEMORY


def peak() -> float:
    """Peak resident memory of this process [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, removed, doubled or put in; or the end cut off."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(result) + 1)
        length = chance.choice((1, 1, 2, 8, 100))
        kind = chance.randrange(5)
        if kind == 0:
            result[place : place + length] = chance.randbytes(length)
        elif kind == 1:
            del result[place : place + length]
        elif kind == 2:
            result[place:place] = result[place : place + length]
        elif kind == 3:
            result[place:place] = chance.choice((b"\xff", b"\x00", b"{", b"[", b"9" * 400, b"\n- ", b"<a>", b"&a;"))
        else:
            del result[place:]
    return bytes(result)


def damaged_tree(content: object, chance: random.Random) -> object:
    """Nested lists and dictionaries with one to three values replaced, removed, renamed or exchanged."""
    content = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        holder, key = _place(content, chance)
        if holder is None:
            return nasty(chance)
        kind = chance.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[chance.choice(("attn_implementation", "auto_map", "a", "", "extends"))] = holder.pop(key)
        elif kind == 2:
            holder[key] = [holder[key]]
        elif kind == 3 and isinstance(holder[key], int | float):
            holder[key] *= chance.choice((-1, 10, 1000, 10**6, 10**300))
        else:
            holder[key] = nasty(chance)
    return content


def nasty(chance: random.Random) -> object:
    """A value that somebody's reader does not expect; a new one, for it may be damaged in turn."""
    return copy.deepcopy(chance.choice(NASTY))


def _place(content: object, chance: random.Random) -> tuple:
    """A random list or dictionary inside, and a key of it; (None, None) where there is none."""
    places, holders = [], [content]
    while holders:
        holder = holders.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        places += [(holder, key) for key in keys]
        holders += [holder[key] for key in keys]
    return chance.choice(places) if places else (None, None)


def json_maker(file: Path) -> Callable[[random.Random], bytes]:
    """Makes damaged versions of a JSON file: two thirds in their values, one third in their bytes."""
    content, data = json.loads(file.read_text()), file.read_bytes()

    def make(chance: random.Random) -> bytes:
        if chance.random() < 1 / 3:
            return damaged_bytes(data, chance)
        return json.dumps(damaged_tree(content, chance)).encode("utf-8", "surrogatepass")

    return make
