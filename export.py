#!/usr/bin/env python3
"""Export a trained generator: `python export.py --help`. The work itself is p2p/commands/export.py."""

import sys

from p2p.system.signals import stoppable

if __name__ == "__main__":
    with stoppable():  # imports, too
        from p2p.commands.start import run_command

        run_command("export", sys.argv[1:])
