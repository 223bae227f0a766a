# SPDX-License-Identifier: Apache-2.0
"""An expected error is one line, with a remedy even where the operating system has none."""

import errno
import re

import pytest
from pydantic import TypeAdapter, ValidationError

from qwen_vla.errors.error_text import as_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("rate_hz 0: it must be above 0"), "rate_hz 0: it must be above 0"),
        (KeyError("unknown suite 'chess'"), "unknown suite 'chess'"),
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "a.json: Permission denied; change its .*"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "data"), "data: Is a directory; name a file"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "b"), "b: No such file .*; check the path"),
        (OSError(errno.EIO, "Input/output error", "b"), "b: Input/output error"),
        (OSError("cannot listen on 127.0.0.1:80"), "cannot listen on 127.0.0.1:80"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), ".*Connection refused"),
    ],
)
def test_an_error_is_one_line_with_its_remedy(error, line):
    assert re.fullmatch(line, as_line(error))


def test_an_error_of_pydantic_is_one_line_with_field_and_value():
    with pytest.raises(ValidationError) as error:
        TypeAdapter(dict[str, int]).validate_python({"count": "many"})
    assert re.fullmatch("count: .* integer.*, got 'many'", as_line(error.value))
