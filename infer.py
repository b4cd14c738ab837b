#!/usr/bin/env python3
"""Translate images with an exported generator: `python infer.py --help`. The work itself is p2p/commands/infer.py."""

import sys

from p2p.system.signals import stoppable

if __name__ == "__main__":
    with stoppable():  # imports, too
        from p2p.commands.start import run_command

        run_command("infer", sys.argv[1:])
