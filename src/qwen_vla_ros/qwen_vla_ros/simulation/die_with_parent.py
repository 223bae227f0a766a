# SPDX-License-Identifier: Apache-2.0
"""Program: becomes a command that the kernel kills when its parent process is gone (Linux only).

    python -I -S die_with_parent.py PARENT_PID COMMAND [ARGUMENT...]

A separate program because the flag must be set between fork and exec, where a multithreaded process may not run Python.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; the flag survives exec


def main() -> None:
    """Set the flag, then become the command. SIGKILL, because a hanging process would ignore anything else."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the flag was set
        sys.exit(f"process {parent}, which started {command[0]}, is gone")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # shells start background jobs with SIGINT ignored
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
