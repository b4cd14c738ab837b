"""Torch-TensorRT: the generator as a TensorRT engine, on NVIDIA GPUs.

Works with both flavours, TensorRT (`torch-tensorrt`) and TensorRT-RTX (`torch-tensorrt-rtx`); the manifest
says which. Neither imports without a driver, so they are imported where they are used.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import DTYPES, Precision

PACKAGES = ("torch-tensorrt", "torch-tensorrt-rtx", "tensorrt", "tensorrt-rtx-cu13")


def unavailable() -> str | None:
    """Why Torch-TensorRT cannot run here, as half a sentence; None if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA GPU"
    try:
        _import()
    except Exception as error:  # missing package, missing library, wrong driver: each fails in its own way
        return f"torch_tensorrt cannot be imported ({str(error).splitlines()[0]})"
    return None


def export(
    generator: nn.Module,
    example_NCHW: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | None = None,
    max_batch: int | None = None,
) -> Program:
    """Write `generator.pt2`, an exported program around one TensorRT engine, for batches of 1 to `max_batch`.

    Args:
        generator: in eval mode, float32.
        example_NCHW: float32 (N, C, H, W); fixes all but the batch.
        precision: "fp16" (the default), "bf16" or "fp32".
        max_batch: the largest batch, which the engine is tuned for; None for 32.

    Raises:
        ValueError: Torch-TensorRT cannot run here.
    """
    reason = unavailable()
    if reason:
        raise ValueError(f"backend=torch_tensorrt cannot be used, because {reason}: use backend=auto")
    torch_tensorrt = _import()
    dtype = DTYPES[precision or "fp16"]
    max_batch = max_batch or 32
    _, *image = example_NCHW.shape
    # Strong typing: the engine computes in the dtypes of the module. The arguments that once set a precision
    # are gone in 2.14, which ignores unknown arguments without a word.
    generator = generator.to("cuda", dtype)
    batch = torch.export.Dim("batch", min=1, max=max_batch)
    example = example_NCHW[:1].expand(max_batch, -1, -1, -1).to("cuda", dtype).contiguous()
    program = torch.export.export(generator, (example,), dynamic_shapes=({0: batch},))
    shapes = {"min_shape": (1, *image), "opt_shape": (max_batch, *image), "max_shape": (max_batch, *image)}
    inputs = [torch_tensorrt.Input(**shapes, dtype=dtype)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own graph surgery
        try:
            compiled = torch_tensorrt.dynamo.compile(program, inputs, require_full_compilation=True)
        except Exception as error:  # TensorRT says no in many ways; TensorRT-RTX 1.4 to transposed convolutions in bf16
            raise ValueError(
                f"TensorRT cannot build this generator in {dtype}: choose another backend.precision, or"
                " backend=exported_program"
            ) from error
        path = str(folder / "generator.pt2")
        torch_tensorrt.save(compiled, path, inputs=[example], dynamic_shapes=({0: batch},), retrace=False)
    return Program(
        backend="torch_tensorrt",
        file="generator.pt2",
        dtype=str(dtype).removeprefix("torch."),
        max_batch=max_batch,
        versions=versions(*PACKAGES),
        gpu=torch.cuda.get_device_name(),
    )


def load(path: Path, *, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The engine as a function on `device`."""
    _import()  # registers the operator that runs engines
    with torch.cuda.device(device):
        return torch.export.load(path).module()


def _import():
    """Import torch_tensorrt without its greetings, which are for its developers."""
    for name in ("torch_tensorrt", "torch_tensorrt [TensorRT Conversion Context]"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import torch_tensorrt

    return torch_tensorrt
