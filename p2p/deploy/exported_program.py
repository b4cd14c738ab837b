"""torch.export: a portable graph of the generator, for CPUs and wherever nothing faster is at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import DTYPES, Precision


def export(
    generator: nn.Module,
    example_NCHW: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | None = None,
    max_batch: int | None = None,
) -> Program:
    """Write `generator.pt2`, which `torch.export.load` reads without any of this project's code.

    Args:
        generator: in eval mode, float32.
        example_NCHW: float32 (N, C, H, W), N at least 1; fixes all but the batch.
        precision: "fp32" (the default), "bf16" or "fp16".
        max_batch: the largest batch, or None for any.
    """
    dtype = DTYPES[precision or "fp32"]
    # Two images: with one, torch.export takes the batch for a constant.
    example = example_NCHW[:1].expand(2, -1, -1, -1).to(dtype).contiguous()
    batch = torch.export.Dim("batch", min=1, max=max_batch)
    program = torch.export.export(generator.to(dtype), (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "generator.pt2")
    return Program("exported_program", "generator.pt2", str(dtype).removeprefix("torch."), max_batch, versions())


def load(path: Path, *, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The program as a function on `device`."""
    program = torch.export.load(path)
    if device.type != "cpu":
        program = torch.export.passes.move_to_device_pass(program, device)
    return program.module()
