"""The device that a command works on."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" -> the device.

    Raises:
        ValueError: another name, or a GPU that is not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name} is not known: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda cannot be used: torch finds no GPU here")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
