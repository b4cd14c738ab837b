"""The first fields of every benchmark's JSON: machine, versions, commit."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from p2p.deploy.manifest import now, versions

ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """The checkout's commit, marked where it has uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def head(commit: str, *packages: str) -> dict:
    """When, of which code, on what machine and with which versions: of Python, torch and the named packages."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "created": now(),
        "commit": commit,
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "gpu": gpu},
        "versions": versions(*packages),
    }
