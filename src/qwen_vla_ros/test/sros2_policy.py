"""What config/sros2/policy.xml allows, as the middleware reads it: `*` stands for any text, slashes included."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

POLICY = Path(__file__).resolve().parents[3] / "config" / "sros2" / "policy.xml"


def rules(enclave: str, kind: str, verb: str) -> set[str]:
    """Expressions that a whole enclave is allowed: kind topic, service or action."""
    root = ElementTree.parse(POLICY).getroot()
    (found,) = [e for e in root.iter("enclave") if e.get("path") == f"/qwen_vla/{enclave}"]
    lists = [group for group in found.iter(f"{kind}s") if group.get(verb) == "ALLOW"]
    return {expression.text for group in lists for expression in group}


def refused(enclave: str, kind: str, verb: str, names: set[str]) -> set[str]:
    """Those of the names that an enclave may not use so."""
    allowed = rules(enclave, kind, verb)
    return {name for name in names if not any(fnmatchcase(name.lstrip("/"), rule) for rule in allowed)}
