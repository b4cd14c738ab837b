"""torch.export: a portable graph of the generator, for CPUs and wherever nothing faster is at hand."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from p2p.deploy import rewrite
from p2p.deploy.archive import FOREIGN, check_archive, weights_only
from p2p.deploy.fields import MOST_IMAGES
from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import Precision, described, dtype_of
from p2p.deploy.takes import Takes
from p2p.system.quiet import quiet

CPU = torch.device("cpu")


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
    rewrites: Sequence[str] = ("last",),
) -> Program:
    """Write `generator.pt2`, which `torch.export.load` reads without any of this project's code.

    Args:
        generator: in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W), of `rewrite.Frames` uint8 (N, H, W, C), N at least 1; fixes all but the batch.
        precision: "fp32" (the default), "bf16" or "fp16".
        min_batch, max_batch: the batches it takes; None: any above. Equal: that one alone.
        rewrites: of the network before it is exported, see `p2p.deploy.rewrite.apply`; they change its speed alone.

    Raises:
        ValueError: min_batch and max_batch contradict each other.
    """
    dtype = dtype_of(precision or "fp32")
    program = trace(generator, example, dtype=dtype, min_batch=min_batch, max_batch=max_batch, rewrites=rewrites)
    write(program, folder / "generator.pt2")
    return Program(
        backend="exported_program",
        file="generator.pt2",
        **described(dtype, example),
        min_batch=min_batch,
        max_batch=max_batch,
        versions=versions(),
    )


def write(program: ExportedProgram, path: Path) -> None:
    """Save a program by way of memory: where the disk is full, torch's own way to a file ends the process."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())


def load(program: Program, folder: Path, *, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The program as a function on `device`.

    Raises:
        ValueError: the file is damaged, or not as export.py writes it; and later, for an input of another shape or
            dtype.
    """
    exported = read(folder / program.file)
    if device.type != "cpu":
        exported = move_to_device_pass(exported, device)
    return checked(exported.module(), taken(exported))


def checked(module: nn.Module, takes: Takes) -> Callable[[torch.Tensor], torch.Tensor]:
    """The module as a function that refuses other inputs than it takes."""

    def run(images: torch.Tensor) -> torch.Tensor:
        takes.check(images)
        return module(images)

    return run


def read(path: Path) -> ExportedProgram:
    """What torch.export has saved, of which nothing is run, without its warnings of how its own file is laid out.

    Raises:
        ValueError: the file is damaged, or holds what could run, see `p2p.deploy.archive`.
    """
    check_archive(path)
    try:
        with quiet(), weights_only():
            program = torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds a pickled object, {FOREIGN}") from error
    program._guards_code = []  # Python code; `taken` says the same
    return program


def taken(program: ExportedProgram) -> Takes:
    """The inputs of a program."""
    [name] = program.graph_signature.user_inputs
    [value] = [node.meta["val"] for node in program.graph.nodes if node.name == name]
    count, *image = value.shape
    if isinstance(count, int):
        least = most = count
    else:
        limits = program.range_constraints[count.node.expr]
        least, most = int(limits.lower), int(limits.upper) if limits.upper < MOST_IMAGES else None
    return Takes(least, most, tuple(image), str(value.dtype).removeprefix("torch."))


def check_batches(min_batch: int, max_batch: int | None) -> None:
    """Raise a ValueError if they contradict each other."""
    if min_batch < 1 or (max_batch is not None and max_batch < min_batch):
        raise ValueError(
            f"backend.min_batch={min_batch} and backend.max_batch={max_batch} do not fit together: the first is at"
            " least 1, the second not smaller, and both are the same for a program of one batch size"
        )


def trace(
    generator: nn.Module,
    example: torch.Tensor,
    *,
    dtype: torch.dtype,
    device: torch.device = CPU,
    channels_last: bool = False,
    min_batch: int,
    max_batch: int | None,
    rewrites: Sequence[str],
) -> ExportedProgram:
    """The generator's ATen graph, which the other backends start from as well. The generator itself stays as it is.

    Args:
        generator, example, min_batch, max_batch, rewrites: see `export`.
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
    # A copy, because converting a module converts it in place, and other backends may want it after this one.
    network = copy.deepcopy(rewrite.apply(generator, rewrites, example)).to(device, dtype)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    varying = None if static else {0: torch.export.Dim("batch", min=min_batch, max=max_batch)}
    with torch.no_grad():
        return torch.export.export(network, (batch,), dynamic_shapes=(varying,))
