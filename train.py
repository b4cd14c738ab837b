#!/usr/bin/env python3
"""Train pix2pix on image pairs: `python train.py --help`. The work itself is p2p/commands/train.py."""

import sys

from p2p.system.signals import stoppable

if __name__ == "__main__":
    with stoppable():  # imports, too
        from p2p.commands.start import run_command

        run_command("train", sys.argv[1:])
