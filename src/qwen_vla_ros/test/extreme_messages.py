# SPDX-License-Identifier: Apache-2.0
"""Random messages of any interface type with unexpected values. Reproducible: everything follows from one seed."""

from __future__ import annotations

import importlib
import random
from typing import Any

from rclpy.serialization import serialize_message
from rosidl_parser import definition

FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-300, 1e300, -1e300, 3.4e38, 6.28)
TEXTS = (
    *("", " ", "widowx", "waist", "base_link", "ego", "rgb8", "mono8", "jpeg", "eef_delta", "\x1b[2J\x1b[31m", "\x00"),
    *("a\nb", "../../etc/passwd", "<|image_pad|>", "{instruction}", "%s%n", "\u202e\ufeff", "大" * 600, "x" * 5000),
)
COUNTS = (0, 0, 1, 2, 3, 7, 16, 200)  # of a list
BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}


class Extremes:
    """Draws messages; `draw` is the only source of randomness."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def message(self, kind: type, **fields: Any) -> Any:
        """A message of a type; `fields` are as given."""
        message = kind()
        for name, slot in zip(kind.get_fields_and_field_types(), kind.SLOT_TYPES, strict=True):
            setattr(message, name, fields[name] if name in fields else self._value(slot))
        return message

    def damaged(self, kind: type) -> bytes:
        """Bytes that cannot be deserialized as a message of a type: truncated or altered."""
        data = bytearray(serialize_message(self.message(kind)))
        for _ in range(self.draw.randrange(1, 6)):
            data[self.draw.randrange(len(data))] = self.draw.choice([0, 1, 127, 255])
        return bytes(data[: self.draw.randrange(4, len(data) + 1)])

    def huge(self, kind: type, size: int) -> bytes:
        """A message followed by `size` more bytes [1]."""
        return serialize_message(kind()) + bytes(size)

    def _value(self, slot: Any) -> Any:
        if isinstance(slot, definition.Array):
            return [self._value(slot.value_type) for _ in range(slot.size)]
        if isinstance(slot, definition.AbstractSequence):
            count = min(self.draw.choice(COUNTS), getattr(slot, "maximum_size", 200))
            return [self._value(slot.value_type) for _ in range(count)]
        if isinstance(slot, definition.AbstractGenericString):
            return self.draw.choice(TEXTS)
        if isinstance(slot, definition.NamespacedType):
            return self.message(_class_of(slot))
        return self._number(slot.typename)

    def _number(self, name: str) -> Any:
        if name in BITS:
            least = 0 if name.startswith("u") else -(2 ** (BITS[name] - 1))
            most = least + 2 ** BITS[name] - 1
            return self.draw.choice([0, 1, 2, least, most, most // 2, self.draw.randint(least, most)])
        if name == "boolean":
            return self.draw.random() < 0.5
        if name == "octet":
            return bytes([self.draw.randrange(256)])
        return self.draw.choice(FLOATS)


def _class_of(slot: definition.NamespacedType) -> type:
    module = importlib.import_module(".".join(slot.namespaces))
    if hasattr(module, slot.name):
        return getattr(module, slot.name)
    action, _, part = slot.name.rpartition("_")
    return getattr(getattr(module, action), part)
