"""PyTorch's own kernels in a CUDA graph: nothing is compiled, so that exporting takes seconds.

The program is the graph of torch.export, as in `p2p.deploy.backends.exported_program`. What makes it fast is how it is
run: weights in the memory order of NHWC, which convolutions on tensor cores read without reordering; cuDNN's trial of
all its kernels for each convolution; and one launch for the whole network in place of one a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2p.deploy import graph
from p2p.deploy.backend import Run
from p2p.deploy.cuda_graph import Captured
from p2p.deploy.manifest import Program
from p2p.deploy.precision import Precision, dtype_of
from p2p.deploy.signature import checked
from p2p.deploy.sizes import Sizes
from p2p.deploy.torch_export import export_graph

VERSIONS = {"torch": "not older"}  # than what has written the file


def unavailable() -> str | None:
    """Why it cannot run here, as half a sentence; None if it can."""
    return None if torch.cuda.is_available() else "there is no CUDA GPU"


def export(
    generator: nn.Module,
    example: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | None = None,
    min_batch: int = 1,
    max_batch: int | None = None,
    sizes: Sizes | None = None,
    rewrites: Sequence[str] = ("last",),
) -> Program:
    """Write `generator.pt2`, which `torch.export.load` reads without any of this project's code.

    Args:
        generator: in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W), of `rewrite.Frames` uint8 (N, H, W, C), N at least 1; fixes all but the batch.
        precision: "fp16" (the default), "bf16" or "fp32", which GPUs since Ampere round to TF32 in convolutions.
        min_batch, max_batch: the batches it takes; None: any above. Equal: that one alone.
        sizes: heights and widths that it takes; None: those of the example alone.
        rewrites: of the network before it is exported, see `p2p.deploy.rewrite.apply`; they change its speed alone.

    Raises:
        ValueError: there is no GPU, or min_batch and max_batch contradict each other.
    """
    reason = unavailable()
    if reason:
        raise ValueError(f"backend=eager cannot be used, because {reason}: use backend=auto")
    dtype = dtype_of(precision or "fp16")
    shapes: dict[str, Any] = {"min_batch": min_batch, "max_batch": max_batch, "sizes": sizes}
    return export_graph("eager", generator, example, folder, dtype=dtype, **shapes, rewrites=rewrites)


def load(program: Program, folder: Path, *, device: torch.device) -> Run:
    """The program as a function on `device`; on a GPU it replays CUDA graphs, see `p2p.deploy.cuda_graph.Captured`.

    Raises:
        ValueError: see `p2p.deploy.backends.exported_program.load`.
    """
    on_gpu = device.type == "cuda"
    run, signature = graph.load(folder / program.file, device=device, channels_last=on_gpu)
    run = checked(run, signature)
    return Captured(run, device=device, dtype=getattr(torch, signature.dtype)) if on_gpu else run
