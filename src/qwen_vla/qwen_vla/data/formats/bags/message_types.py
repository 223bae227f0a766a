# SPDX-License-Identifier: Apache-2.0
"""Message types of a bag: as it defines them, else as ROS does. SQLite bags before Iron define none.

Types of a bag's topics are made only where they are used: a damaged or unknown one of another topic does not matter.
"""

from __future__ import annotations

import functools
from typing import Any

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from qwen_vla.data.formats.bags.storage import StoredTopic, Unreadable

LONGEST_DEFINITION = 1 << 20  # characters
IDL_SEPARATOR = "=" * 80 + "\n"
# Types that robots of the suite use and ROS does not define.
XS_SDK = {
    "interbotix_xs_msgs/msg/JointGroupCommand": "string name\nfloat32[] cmd\n",
    "interbotix_xs_msgs/msg/JointSingleCommand": "string name\nfloat32 cmd\n",
}


def deserialized(topic: StoredTopic, data: bytes) -> Any:
    """A message of a topic.

    Raises:
        Unreadable: its type is unknown, or the data are no message of that type.
    """
    store = _store_of(topic)
    reason: Exception | None = None
    for extra in (0, 4, 8):  # Fast CDR appends up to eight bytes to some messages, which rosbags would refuse
        try:
            return store.deserialize_cdr(data[: len(data) - extra], topic.type)
        except Exception as error:  # the deserializer raises anything for bytes that are no message
            reason = reason or error
    raise Unreadable(f"it is damaged: {type(reason).__name__}: {reason}") from reason


def _store_of(topic: StoredTopic) -> Typestore:
    if topic.encoding != "cdr":
        raise Unreadable(f"it is encoded as {topic.encoding!r}; bags of ROS 2 have cdr")
    store = _made(topic.type, topic.format, topic.definition)
    if topic.type not in store.fielddefs:
        raise Unreadable(
            "the bag does not define its type, and it is not one of ROS; record with MCAP, which stores definitions"
        )
    if topic.digest.startswith("RIHS01_") and (own := _digest(store, topic.type)) != topic.digest:
        raise Unreadable(
            f"the definition of its type does not have the hash that was recorded ({own}, not {topic.digest}); the "
            "definition is damaged, or of another version; record with MCAP, which stores definitions"
        )
    return store


@functools.lru_cache(64)
def _made(name: str, kind: str, definition: str) -> Typestore:
    """Types of ROS and of the xs_sdk, and those of one definition, which take precedence."""
    own: dict[str, Any] = {}
    if definition:
        if len(definition) > LONGEST_DEFINITION:
            raise Unreadable(f"the definition of its type has {len(definition)} characters")
        try:
            own = _from_idl(definition) if kind.endswith("idl") else get_types_from_msg(definition, name)
        except Exception as error:  # the parser raises anything for text that is no definition
            raise Unreadable(f"the definition of its type cannot be read: {error}") from error
    if not own:
        return _known_types()
    _check_fields(own)
    store = get_typestore(Stores.EMPTY)
    try:
        store.register({**_known_types().fielddefs, **own})
    except Exception as error:
        raise Unreadable(f"the definition of its type cannot be used: {error}") from error
    return store


def _check_fields(own: dict[str, Any]) -> None:
    """Unreadable if a type of ROS is defined with other fields."""
    known = _known_types().fielddefs
    for name in own.keys() & known.keys():
        told, expected = ([field for field, *_ in types[name][1]] for types in (own, known))
        if told != expected:
            raise Unreadable(
                f"the bag defines {name} with the fields {', '.join(told)}; in ROS it has {', '.join(expected)}"
            )


def _from_idl(definition: str) -> dict[str, Any]:
    if not definition.startswith(f"{IDL_SEPARATOR}IDL: "):
        return get_types_from_idl(definition)
    types: dict[str, Any] = {}
    for part in definition.split(IDL_SEPARATOR)[1:]:
        types |= get_types_from_idl(part.partition("\n")[2])
    return types


def _digest(store: Typestore, name: str) -> str:
    try:
        return store.hash_rihs01(name)
    except Exception as error:
        raise Unreadable(f"the definition of its type is incomplete: {error}") from error


@functools.cache
def _known_types() -> Typestore:
    store = get_typestore(Stores.ROS2_KILTED)
    for name, definition in XS_SDK.items():
        store.register(get_types_from_msg(definition, name))
    return store
