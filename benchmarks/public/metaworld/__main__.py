# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.public.metaworld`, see `protocol.command`."""

from benchmarks.public.metaworld.benchmark import METAWORLD
from benchmarks.public.protocol.command import main

if __name__ == "__main__":
    main(METAWORLD)
