"""Digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK = 1 << 24  # bytes; between two of them a thread waits up to 5 ms for Python's lock, while another runs Python


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        chunk = memoryview(bytearray(min(CHUNK, path.stat().st_size + 1)))
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
    return digest.hexdigest()
