"""torch.export: a portable graph of the generator, for CPUs and wherever nothing faster is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2p.deploy import graph
from p2p.deploy.backend import Run
from p2p.deploy.manifest import Program
from p2p.deploy.precision import Precision, dtype_of
from p2p.deploy.signature import checked
from p2p.deploy.sizes import Sizes
from p2p.deploy.torch_export import export_graph

VERSIONS = {"torch": "not older"}  # than what has written the file


def unavailable() -> str | None:
    """Why it cannot run here: it can everywhere, hence None."""
    return None


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
        precision: "fp32" (the default), "bf16" or "fp16".
        min_batch, max_batch: the batches it takes; None: any above. Equal: that one alone.
        sizes: heights and widths that it takes; None: those of the example alone.
        rewrites: of the network before it is exported, see `p2p.deploy.rewrite.apply`; they change its speed alone.

    Raises:
        ValueError: min_batch and max_batch contradict each other.
    """
    dtype = dtype_of(precision or "fp32")
    shapes: dict[str, Any] = {"min_batch": min_batch, "max_batch": max_batch, "sizes": sizes}
    return export_graph("exported_program", generator, example, folder, dtype=dtype, **shapes, rewrites=rewrites)


def load(program: Program, folder: Path, *, device: torch.device) -> Run:
    """The program as a function on `device`.

    Raises:
        ValueError: the file is damaged, or not as export.py writes it; and later, for an input of another shape or
            dtype.
    """
    return checked(*graph.load(folder / program.file, device=device))
