"""Choose a backend by measuring: build every one that can run here, and keep the fastest."""

from __future__ import annotations

import copy
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2p.batch import from_frames
from p2p.deploy.accuracy import psnr_db, reference_outputs
from p2p.deploy.backend import Run, find, names
from p2p.deploy.engine import load_program, run_padded
from p2p.deploy.manifest import Program
from p2p.deploy.precision import DTYPES, Precision
from p2p.deploy.rewrite import Frames
from p2p.deploy.sizes import Sizes
from p2p.deploy.timing import median_seconds
from p2p.system.gpu_faults import failure, in_numbers, memory_full

log = logging.getLogger(__name__)


@dataclass
class Candidate:
    """A row of the table.

    Attributes:
        backend, precision: what was built; the precision is unknown until it was.
        build_s: seconds.
        batch_ms: median time of a batch in milliseconds.
        images_per_s: the same as a rate.
        worst_psnr: dB against fp32 eager, of the worst image.
        verdict: "kept", how many times as long as that one takes, as in "1.70x", or why it is out of the question.
    """

    backend: str
    precision: str | None = None
    build_s: float | None = None
    batch_ms: float | None = None
    images_per_s: float | None = None
    worst_psnr: float | None = None
    verdict: str = ""


def export(
    generator: nn.Module,
    example: torch.Tensor,
    folder: Path,
    *,
    batch_size: int | None = None,
    min_psnr: float = 40.0,
    precision: Precision | None = None,
    backends: Sequence[str] | None = None,
    device: str = "auto",
    sizes: Sizes | None = None,
) -> Program:
    """Write the program that translates batches of `batch_size` in the least time, of those that are close to fp32.

    Args:
        generator: in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W) in [-1, 1], of `rewrite.Frames` uint8 (N, H, W, C), real images: every program is
            judged by all of them.
        folder: receives the file of the fastest.
        batch_size: each program takes batches of exactly this size; None: 8.
        min_psnr: dB that the worst image must reach.
        precision: "fp32", "bf16" or "fp16" for all; None: each backend's own.
        backends: to try, see `p2p.deploy.backend.find`; None: all of p2p.
        device: "auto", "cpu" or "cuda", where it is to run.
        sizes: heights and widths that each program takes, which are measured at the example's; None: that alone.

    Returns:
        The program, with a row for each backend in `considered`.

    Raises:
        ValueError: a batch_size below 1, or no backend is left; with each one's reason.
        OutOfMemoryError: none is left, and the memory of the GPU did not hold one of them.
    """
    batch_size = 8 if batch_size is None else batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is too small: use 1 or more")
    where = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if isinstance(generator, Frames):
        expected = reference_outputs(generator.network, from_frames(example))
    else:
        expected = reference_outputs(generator, example)
    rows, built, full = [], {}, None
    shapes = {"min_batch": batch_size, "max_batch": batch_size} | ({} if sizes is None else {"sizes": sizes})
    backends = names() if backends is None else backends
    for name in backends:
        row = Candidate(name)
        rows.append(row)
        try:
            program, run = _build(row, generator, example, folder / name, shapes, precision, where)
            psnr = _psnr(program, run, example, expected, device=where)
        except Exception as error:  # of whichever library: it is this backend's end, and not that of the others
            if failure(error) is not None:
                raise  # the others' as well
            row.verdict = next(iter(str(error).splitlines()), type(error).__name__)
            if (said := memory_full(error)) is not None:
                full, row.verdict = said, "the GPU's memory is full" + in_numbers(said)
            continue
        row.worst_psnr = round(psnr, 2) if psnr == psnr else None  # JSON knows no NaN
        if psnr >= min_psnr:
            built[name] = (row, program, run)
        else:
            row.verdict = f"{psnr:.1f} dB is below min_psnr={min_psnr:g}"
    if not built:
        if full is not None:
            raise torch.OutOfMemoryError(full)
        reasons = "; ".join(f"{row.backend}: {row.verdict}" for row in rows)
        raise ValueError(f"no backend can export this generator here ({reasons})")
    batches = {}
    for name, (_, program, run) in built.items():
        batch = example[:1].expand(batch_size, -1, -1, -1).to(where, getattr(torch, program.dtype)).contiguous()
        batches[name] = (run, batch)
    for name, seconds in median_seconds(batches, device=where).items():
        built[name][0].batch_ms = round(seconds * 1000, 4)
        built[name][0].images_per_s = round(batch_size / seconds, 1)
    fastest = min(row.batch_ms for row, _, _ in built.values())
    for row, _, _ in built.values():
        row.verdict = f"{row.batch_ms / fastest:.2f}x"
    best, program, _ = min(built.values(), key=lambda entry: entry[0].batch_ms)
    best.verdict = "kept"
    for path in (folder / best.backend).iterdir():
        path.rename(folder / path.name)
    for name in backends:
        shutil.rmtree(folder / name, ignore_errors=True)
    return replace(program, considered=[asdict(row) for row in rows])


def _build(
    row: Candidate,
    generator: nn.Module,
    example: torch.Tensor,
    folder: Path,
    shapes: dict[str, Any],
    precision: Precision | None,
    device: torch.device,
) -> tuple[Program, Run]:
    """Build one candidate into `folder`, note in its row how long that took, and load it."""
    backend = find(row.backend)
    if reason := backend.unavailable():
        raise ValueError(reason)
    log.info("%s: building", row.backend)
    folder.mkdir()
    started = time.perf_counter()
    # A copy, because a backend may move the network to the GPU and into another precision.
    program = backend.export(copy.deepcopy(generator), example, folder, precision=precision, **shapes)
    row.build_s = round(time.perf_counter() - started, 1)
    names = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
    row.precision = program.precision or names[program.dtype]
    if program.gpu is not None and device.type != "cuda":
        raise ValueError(f"it runs on a GPU, and device={device.type}")
    return program, load_program(backend, program, folder, device=device)


@torch.inference_mode()
def _psnr(
    program: Program,
    run: Run,
    example: torch.Tensor,
    expected_NCHW: torch.Tensor,
    *,
    device: torch.device,
) -> float:
    """Of the worst image, in dB."""
    batches = example.to(device, getattr(torch, program.dtype)).split(program.min_batch)
    outputs = torch.cat([run_padded(run, batch, min_batch=program.min_batch).cpu() for batch in batches])
    return psnr_db(from_frames(outputs) if program.dtype == "uint8" else outputs, expected_NCHW).min().item()
