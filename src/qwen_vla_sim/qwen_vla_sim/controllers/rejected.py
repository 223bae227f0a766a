# SPDX-License-Identifier: Apache-2.0
"""The one exception by which whatever obeys commands refuses one."""


class CommandRejected(ValueError):
    """The command is refused as a whole; the text says what is wrong with it."""
