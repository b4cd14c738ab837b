"""Kernels of this project's own, for U-Nets: see `p2p.deploy.kernels.shifted_gemm` for how they work.

A program file holds the weights in the order in which the kernels read them, and the tiles that were fastest on the
GPU that it was made on. Triton compiles the kernels when they are first needed, and keeps them in its own cache.
"""

from __future__ import annotations

import bisect
import copy
import importlib.util
import pickle
from dataclasses import astuple
from io import BytesIO
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from p2p.batch import from_frames, to_frames
from p2p.deploy.backend import Run
from p2p.deploy.cuda_graph import MAX_GRAPHS, Captured
from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import DTYPES, EIGHT_BITS, Precision, described
from p2p.deploy.rewrite import Frames
from p2p.deploy.signature import Signature, check_batches
from p2p.deploy.sizes import Sizes

VERSIONS = {"triton": "minor"}  # tiles that fit the shared memory of one may not fit that of another


def unavailable() -> str | None:
    """Why it cannot run here, as half a sentence; None if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA GPU"
    if torch.cuda.get_device_capability() < (9, 0):
        return f"{torch.cuda.get_device_name()} has no tensor memory accelerator, which GPUs have from Hopper on"
    return None if importlib.util.find_spec("triton") else "the package triton is not installed"


def export(
    generator: nn.Module,
    example: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | Literal["int8", "fp8"] | None = None,
    min_batch: int = 1,
    max_batch: int | None = None,
    sizes: Sizes | None = None,
) -> Program:
    """Write `generator.pt`: packed weights and the tiles of this GPU.

    Frames are converted by PyTorch's kernels before and after these, in the same CUDA graph.

    Args:
        generator: a U-Net, or one in `rewrite.Frames`, in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W) in [-1, 1], of `rewrite.Frames` uint8 (N, H, W, C); fixes all but the batch, and
            8 bits are fitted to these images.
        precision: "fp16" (the default) or "bf16"; "int8" or "fp8" for the inner layers, see
            `p2p.deploy.kernels.quantize`.
        min_batch, max_batch: the batches it takes, None: 32; tiles are chosen for these two and for 8.
        sizes: heights and widths that it takes, with the tiles of the example's; None: those of the example alone.

    Raises:
        ValueError: there is no such GPU, the generator or the precision is another, or the batches contradict each
            other.
    """
    from p2p.deploy.kernels.quantize import calibrate, quantize
    from p2p.deploy.kernels.unet import UNetKernels
    from p2p.deploy.kernels.weights import weights_of

    reason = unavailable()
    if reason:
        raise ValueError(f"backend=triton cannot be used, because {reason}: use backend=auto")
    precision, max_batch = precision or "fp16", max(32, min_batch) if max_batch is None else max_batch
    check_batches(min_batch, max_batch)
    if precision not in ("fp16", "bf16", *EIGHT_BITS):
        raise ValueError(
            f"backend=triton computes in fp16, bf16, int8 or fp8, not in {precision}: use one of these, or another"
            " backend"
        )
    dtype = DTYPES.get(precision, torch.float16)
    io = described(dtype, example)
    signature = Signature(min_batch, max_batch, tuple(example.shape[1:]), io["dtype"], sizes)
    if isinstance(generator, Frames):
        generator, example = generator.network, from_frames(example)
    try:
        weights = weights_of(generator, dtype=torch.float32 if precision in EIGHT_BITS else dtype)
    except ValueError as error:
        raise ValueError(f"backend=triton cannot be used, because {error}: use backend=auto") from None
    device = torch.device("cuda", torch.cuda.current_device())
    if precision in EIGHT_BITS:
        ranges = calibrate(copy.deepcopy(generator).to(device), example.to(device))
        weights = quantize(weights, ranges, dtype=EIGHT_BITS[precision], rest=dtype)
    height, width = signature.size
    on_gpu, tiles = weights.to(device), {}
    for batch in sorted({min_batch, max_batch, min(max(8, min_batch), max_batch)}):
        kernels = UNetKernels(on_gpu, batch=batch, height=height, width=width, device=device)
        tiles[batch] = [astuple(tile) for tile in kernels.tune()]
        del kernels  # its buffers are most of a gigabyte at large batches
    record = {
        "takes": signature.to_text(),
        "skips": weights.skips,
        "down": [vars(layer) for layer in weights.down],
        "up": [vars(layer) for layer in weights.up],
        "tiles": tiles,
    }
    buffer = BytesIO()  # where the disk is full, torch's own way to a file ends the process
    torch.save(record, buffer)
    (folder / "generator.pt").write_bytes(buffer.getbuffer())
    return Program(
        backend="triton",
        file="generator.pt",
        dtype=io["dtype"],
        precision=precision if precision in EIGHT_BITS else io["precision"],
        min_batch=min_batch,
        max_batch=max_batch,
        sizes=sizes,
        versions=versions("triton"),
        gpu=torch.cuda.get_device_name(),
    )


def load(program: Program, folder: Path, *, device: torch.device) -> Run:
    """The program as a function on `device`, which replays CUDA graphs, see `p2p.deploy.cuda_graph.Captured`.

    Raises:
        ValueError: the file is damaged.
    """
    from p2p.deploy.kernels.tiles import Tile
    from p2p.deploy.kernels.unet import UNetKernels
    from p2p.deploy.kernels.weights import Layer, Weights

    path = folder / program.file
    try:
        record = torch.load(path, map_location=device, weights_only=True)
        signature = Signature.from_text(record["takes"])
    except (RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} is not a program of backend=triton, or is damaged: export again") from error
    down, up = ([Layer(**layer) for layer in record[name]] for name in ("down", "up"))
    weights, tuned = Weights(down, up, record["skips"]), sorted(record["tiles"])
    networks: dict[torch.Size, UNetKernels] = {}

    def run(images: torch.Tensor) -> torch.Tensor:
        signature.check(images)
        batch = len(images)
        if images.shape not in networks:
            height, width = images.shape[1:3] if signature.dtype == "uint8" else images.shape[2:]
            kernels = UNetKernels(weights, batch=batch, height=height, width=width, device=device)
            nearest = tuned[min(bisect.bisect_left(tuned, batch), len(tuned) - 1)]
            kernels.tune([Tile(*tile) for tile in record["tiles"][nearest]])
            if len(networks) > MAX_GRAPHS:  # the last one is in no graph, which would go on using its buffers
                networks.popitem()
            networks[images.shape] = kernels  # not before: where memory ran out, its buffers go
        if signature.dtype != "uint8":
            return networks[images.shape](images)
        return to_frames(networks[images.shape](from_frames(images).to(weights.down[0].weight.dtype)))

    return Captured(run, device=device, dtype=getattr(torch, signature.dtype))
