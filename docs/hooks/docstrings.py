"""Gives mkdocstrings a copy of p2p with an __init__.py in each folder, because it skips folders without one."""

import shutil
import tempfile
from pathlib import Path

from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[2]


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config):
    """Make the copy."""
    config.extra["copy"] = tempfile.TemporaryDirectory()  # removed with the config
    package = Path(config.extra["copy"].name) / "p2p"
    shutil.copytree(ROOT / "p2p", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [path for path in package.rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(package.parent)]
    return config
