#!/usr/bin/env python3
"""Translate images with an exported generator: `python infer.py --help`. The work itself is p2p/commands/infer.py."""

from p2p.cli import run_command

if __name__ == "__main__":
    run_command("infer")
