# SPDX-License-Identifier: Apache-2.0
"""An expected error as one line, with a remedy where it is the operating system's own."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "change its permissions, or name another one",
    errno.EPERM: "change its permissions, or name another one",
    errno.EROFS: "name another one",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of that path is a file; name another one",
    errno.ENOSPC: "free some space",
}


def as_line(error: Exception) -> str:
    """The message of an expected error."""
    from pydantic import ValidationError

    from qwen_vla.errors.validation_errors import as_text

    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, ValidationError):
        return as_text(error, error.title)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        remedy = _REMEDIES.get(error.errno or 0)
        return f"{error.filename}: {error.strerror}" + (f"; {remedy}" if remedy else "")
    return str(error)
