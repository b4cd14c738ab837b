"""The backend for whoever does not want to choose."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from p2p.deploy import exported_program, torch_tensorrt
from p2p.deploy.manifest import Program
from p2p.deploy.precision import Precision

log = logging.getLogger(__name__)


def export(
    generator: nn.Module,
    example_NCHW: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | None = None,
    max_batch: int | None = None,
) -> Program:
    """Torch-TensorRT where it can run, else an exported program; logs which, and why.

    The arguments are those of either backend; `precision` None is fp16 for the first and fp32 for the second.
    """
    reason = torch_tensorrt.unavailable()
    backend = exported_program if reason else torch_tensorrt
    because = reason or f"it can be imported and there is a GPU ({torch.cuda.get_device_name()})"
    log.info("backend: %s, because %s", backend.__name__.rpartition(".")[2], because)
    return backend.export(generator, example_NCHW, folder, precision=precision, max_batch=max_batch)
