"""Choose a backend without measuring."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2p.deploy.backends import eager, exported_program, torch_tensorrt
from p2p.deploy.manifest import Program
from p2p.deploy.precision import Precision
from p2p.deploy.sizes import Sizes

log = logging.getLogger(__name__)


def export(
    generator: nn.Module,
    example: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | None = None,
    min_batch: int = 1,
    max_batch: int | None = None,
    sizes: Sizes | None = None,
) -> Program:
    """Torch-TensorRT where it can run, else PyTorch's kernels on a GPU, else an exported program; logs which, and why.

    It takes the first that can run and measures nothing. The arguments are those of every backend; `precision` None
    is fp16 on a GPU and fp32 without.
    """
    reason = torch_tensorrt.unavailable()
    if reason is None:
        backend, because = torch_tensorrt, f"it can be imported and there is a GPU ({torch.cuda.get_device_name()})"
    else:
        backend, because = exported_program if eager.unavailable() else eager, reason
    log.info("backend: %s, because %s", backend.__name__.rpartition(".")[2], because)
    shapes: dict[str, Any] = {"min_batch": min_batch, "max_batch": max_batch, "sizes": sizes}
    return backend.export(generator, example, folder, precision=precision, **shapes)


def may_use_tensorrt(target: str, backends: Sequence[str] | None) -> bool:
    """Whether an export may build a TensorRT engine: auto and fastest do where one can run.

    Args:
        target: of the backend, as in `_target_`.
        backends: by name, of which fastest chooses; None for all.
    """
    if not target.startswith(("p2p.deploy.auto.", "p2p.deploy.fastest.")):
        return "torch_tensorrt" in target
    return "torch_tensorrt" in (backends or ["torch_tensorrt"]) and torch_tensorrt.unavailable() is None
