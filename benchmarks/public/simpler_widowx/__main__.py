# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.public.simpler_widowx`, see `protocol.command`."""

from benchmarks.public.protocol.command import main
from benchmarks.public.simpler_widowx.benchmark import SIMPLER_WIDOWX

if __name__ == "__main__":
    main(SIMPLER_WIDOWX)
