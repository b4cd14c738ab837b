"""torch.export's graph of a generator: made and written. Most backends start from it; `p2p.deploy.graph` runs it."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from p2p.deploy import rewrite
from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import described
from p2p.deploy.signature import check_batches
from p2p.deploy.sizes import Sizes

CPU = torch.device("cpu")


def trace(
    generator: nn.Module,
    example: torch.Tensor,
    *,
    dtype: torch.dtype,
    device: torch.device = CPU,
    channels_last: bool = False,
    min_batch: int,
    max_batch: int | None,
    sizes: Sizes | None = None,
    rewrites: Sequence[str],
) -> ExportedProgram:
    """The generator's ATen graph. The generator itself stays as it is.

    Args:
        generator, example, min_batch, max_batch, sizes, rewrites: see `p2p.deploy.backend.Backend.export`.
        dtype, device: of the graph's weights, inputs and outputs; frames stay uint8.
        channels_last: keep the weights in the memory order of NHWC, which convolutions on tensor cores read.

    Raises:
        ValueError: min_batch and max_batch contradict each other.
    """
    check_batches(min_batch, max_batch)
    static = min_batch == max_batch
    # With one image, torch.export would take a batch that is to vary for a constant.
    size = min_batch if static else max(2, max_batch or min_batch)
    batch = example[:1].expand(size, -1, -1, -1).to(device, dtype if example.is_floating_point() else None).contiguous()
    varying = {} if static else {0: torch.export.Dim("batch", min=min_batch, max=max_batch)}
    if sizes is not None:
        first = 2 if example.is_floating_point() else 1  # of frames, rows come first
        # At what it is tuned for, but two strides at least, since a side of one would be taken for a constant.
        traced = [max(2 * sizes.stride, side) for side in sizes.opt]
        batch = batch.new_zeros([*batch.shape[:first], *traced, *batch.shape[first + 2 :]])
        for place, name in enumerate(("rows", "columns")):
            bounds = {"min": sizes.min[place] // sizes.stride, "max": sizes.max[place] // sizes.stride}
            varying[first + place] = sizes.stride * torch.export.Dim(name, **bounds)
    # A copy, because converting a module converts it in place, and other backends may want it after this one.
    network = copy.deepcopy(rewrite.apply(generator, rewrites)).to(device, dtype)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    with torch.no_grad():
        return torch.export.export(network, (batch,), dynamic_shapes=(varying or None,))


def export_graph(
    backend: str,
    generator: nn.Module,
    example: torch.Tensor,
    folder: Path,
    *,
    dtype: torch.dtype,
    min_batch: int,
    max_batch: int | None,
    sizes: Sizes | None = None,
    rewrites: Sequence[str],
) -> Program:
    """Write `generator.pt2`, and say what it is, for a backend that runs the graph as it is.

    Traced on a CPU, where the graph is the same: the file names no GPU, and runs on any. Arguments as of `trace`.
    """
    batches: dict[str, Any] = {"min_batch": min_batch, "max_batch": max_batch}
    program = trace(generator, example, dtype=dtype, **batches, sizes=sizes, rewrites=rewrites)
    write(program, folder / "generator.pt2")
    return Program(
        backend=backend,
        file="generator.pt2",
        **described(dtype, example),
        **batches,
        sizes=sizes,
        versions=versions(),
    )


def write(program: ExportedProgram, path: Path) -> None:
    """Save a program by way of memory: where the disk is full, torch's own way to a file ends the process."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())
