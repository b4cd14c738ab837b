"""Find out whether a later training has replaced the checkpoint that a program was made from."""

from __future__ import annotations

import os
from pathlib import Path

from p2p.deploy.manifest import Manifest
from p2p.system.digest import sha256


def facts_of(checkpoint: Path) -> dict[str, str | int]:
    """What `Manifest` keeps of a checkpoint. If it is replaced before its weights are read, the program is stale."""
    status = checkpoint.stat()
    return {
        "checkpoint_sha256": sha256(checkpoint),
        "checkpoint_bytes": status.st_size,
        "checkpoint_mtime_ns": status.st_mtime_ns,
    }


def seen_from(folder: Path, checkpoint: Path) -> str:
    """The checkpoint's path from the artifact's folder on: a run's folder can be moved or renamed with both inside."""
    return os.path.relpath(os.path.realpath(checkpoint), os.path.realpath(folder))


def replaced_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that an artifact was made of, if there are other weights in it now.

    None: the same, or no file: a checkpoint may be deleted, and an artifact may be moved elsewhere. Size and time are
    compared first, and the contents where these differ, as in a run that was copied.

    Raises:
        ValueError: there is no artifact, see `Manifest.load`.
    """
    manifest = Manifest.load(folder)
    checkpoint = Path(os.path.realpath(Path(os.path.realpath(folder), manifest.checkpoint)))
    if not checkpoint.is_file():
        return None
    status = checkpoint.stat()
    if (status.st_size, status.st_mtime_ns) == (manifest.checkpoint_bytes, manifest.checkpoint_mtime_ns):
        return None
    return None if sha256(checkpoint) == manifest.checkpoint_sha256 else checkpoint
