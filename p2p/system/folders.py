"""Folders that are written to, and the home folder in paths."""

from __future__ import annotations

import os
from pathlib import Path

from p2p.system.urls import is_url


def from_home(path: str | os.PathLike[str]) -> Path:
    """The path, in which ~ and ~user are home folders; that of an unknown user stays, where Path.expanduser raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def check_output(folder: Path, *, key: str = "output") -> None:
    """Make the folder that files are to be written to, before there are any.

    Raises:
        ValueError: there is a file of that name, or the folder cannot be made or written to; `key` names the setting.
    """
    if is_url(folder):  # a store says so when the first object is written, the folder's history
        if str(folder).startswith("http"):
            raise ValueError(f"{key}={folder} is a web server, which takes no files: name a folder, or use s3://")
        return
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{key}={folder} is a file: name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{key}={folder} cannot be made ({error.strerror}): name another folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{key}={folder} may not be written to: name another folder, or change its permissions")
