#!/usr/bin/env python3
"""Export a trained generator: `python export.py --help`. The work itself is p2p/commands/export.py."""

from p2p.cli import run_command

if __name__ == "__main__":
    run_command("export")
