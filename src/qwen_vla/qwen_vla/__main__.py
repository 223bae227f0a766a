# SPDX-License-Identifier: Apache-2.0
"""`python -m qwen_vla`: the `qwen-vla` command, for launchers that take a module (torchrun, accelerate)."""

from qwen_vla.cli import main

if __name__ == "__main__":
    main()
