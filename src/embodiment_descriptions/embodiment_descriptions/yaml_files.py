# SPDX-License-Identifier: Apache-2.0
"""Reads YAML written by others: no tags, no duplicate keys, no anchors that repeat themselves without end."""

from collections import Counter
from pathlib import Path

import yaml
from yaml.composer import ComposerError

MOST_NODES = 100_000  # of a document with its aliases expanded; a robot or a recipe has some hundred


class CheckedLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, of which PyYAML would keep the last, and aliases that explode."""

    def __init__(self, stream: str) -> None:
        """Load from text."""
        super().__init__(stream)
        self._sizes: dict[int, int] = {}  # by id of a finished node: with its aliases expanded
        self._total = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node; an alias counts as often as it is used."""
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        before = self._total
        node = super().compose_node(parent, index)
        if is_alias and id(node) not in self._sizes:
            raise ComposerError(None, None, "an alias contains itself", mark)
        self._total += self._sizes[id(node)] if is_alias else 1
        if self._total > MOST_NODES:
            raise ComposerError(None, None, f"more than {MOST_NODES} values", mark)
        if not is_alias:
            self._sizes[id(node)] = self._total - before
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Construct a mapping; ConstructorError for a key that is given twice."""
        keys = Counter(str(self.construct_object(key, deep=deep)) for key, _ in node.value)
        duplicates = [key for key, count in keys.items() if count > 1]
        if duplicates:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {', '.join(duplicates)} is given more than once", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> object:
    """Parse a YAML file.

    Raises:
        OSError: it cannot be read.
        yaml.YAMLError: it is not UTF-8, not YAML, not of this kind, or empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(f"{error}; save it as UTF-8") from error
    if (content := parse_yaml(text)) is None:
        raise yaml.YAMLError("it is empty")
    return content


def parse_yaml(text: str) -> object:
    """Parse YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, or not of this kind.
    """
    try:
        return yaml.load(text, Loader=CheckedLoader)
    except yaml.MarkedYAMLError as error:
        raise yaml.YAMLError(_in_one_line(error)) from error
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # 2026-13-45, {[]: 1}, nesting
        raise yaml.YAMLError(str(error)) from error


def _in_one_line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + ", ".join(part for part in (error.context, error.problem) if part)
