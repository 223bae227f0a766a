# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.public.libero`, see `protocol.command`."""

from benchmarks.public.libero.benchmark import LIBERO
from benchmarks.public.protocol.command import main

if __name__ == "__main__":
    main(LIBERO)
