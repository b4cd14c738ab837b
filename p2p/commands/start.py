"""What `train.py`, `export.py`, `infer.py` and `p2p COMMAND` call."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def run_command(name: str, arguments: list[str]) -> None:
    """Do what a command line says, see `p2p.config.cli.run_command`; a sweep ends with a summary of its jobs.

    A Python without the packages of p2p, as that of a new clone, ends with one sentence.
    """
    try:
        from p2p.config import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("p2p", "hydra_plugins"):
            raise
        sys.exit(
            f"error: {sys.executable} has no package {error.name}: install p2p by `make demo` or `pip install .`, and "
            "activate its environment, as README.md says"
        )
    cli.run_command(name, arguments, load=partial(load, name), summarize=summarize)


def load(name: str) -> Callable[..., Any]:
    """The command's function; importing it imports torch."""
    return importlib.import_module(f"p2p.commands.{name}").main


def summarize(folder: Path, mark: str) -> str | None:
    """See `p2p.report.sweep.summarize`, which imports NumPy and Pillow."""
    from p2p.report.sweep import summarize

    return summarize(folder, mark)
