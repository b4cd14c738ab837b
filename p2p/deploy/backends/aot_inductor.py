"""AOT Inductor: the generator compiled to a library of fused kernels, for the GPU that is here or else the CPU.

Inductor is the compiler behind torch.compile. Run ahead of time it leaves a package with everything in it: the
kernels, C++ code that launches them, and the weights. Loading takes a second and compiles nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2p.deploy.backend import Run
from p2p.deploy.cuda_graph import Captured
from p2p.deploy.instructions import instructions
from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import Precision, described, dtype_of
from p2p.deploy.signature import Signature
from p2p.deploy.sizes import Sizes
from p2p.deploy.torch_export import trace
from p2p.system.gpu_faults import of_gpu
from p2p.system.quiet import quiet

VERSIONS = {"torch": "minor"}  # which a package must be loaded with: it calls into torch's libraries


def unavailable() -> str | None:
    """Why it cannot run here, as half a sentence; None if it can."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # Inductor's own choice
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler} (the variable CXX can name another)"
    if torch.cuda.is_available() and torch.__version__ < "2.12":
        # Seen on an H200 with 2.11.0+cu130: built in silence, then a segmentation fault in `aoti_load_package`, with
        # freezing and without, static and dynamic. Newer versions were not at hand.
        return f"torch {torch.__version__} crashes while it loads such a package on a GPU"
    if torch.cuda.is_available() and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
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
    max_autotune: bool = False,
    rewrites: Sequence[str] = ("last", "blocks"),
) -> Program:
    """Write `generator.pt2`, which `torch._inductor.aoti_load_package` reads without any of this project's code.

    Args:
        generator: in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W), of `rewrite.Frames` uint8 (N, H, W, C), N at least 1; fixes all but the batch.
        precision: "fp16", "bf16" or "fp32"; None: fp16 on a GPU and fp32 on a CPU.
        min_batch, max_batch: the batches it takes; None: any above. Equal: that one alone, with faster code, because
            the compiler knows every size. Otherwise it tunes for the largest.
        sizes: heights and widths that it takes; None: those of the example alone.
        max_autotune: try Triton's kernels against the vendor's for every convolution, and keep the faster one. On a
            GPU that takes minutes.
        rewrites: of the network before it is exported, see `p2p.deploy.rewrite.apply`; they change its speed alone.

    Raises:
        ValueError: there is no compiler, it fails, or min_batch and max_batch contradict each other.
    """
    reason = unavailable()
    if reason:
        raise ValueError(f"backend=aot_inductor cannot be used, because {reason}: use backend=auto")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    dtype = dtype_of(precision or ("fp16" if gpu else "fp32"))
    device = torch.device("cuda" if gpu else "cpu")
    shapes: dict[str, Any] = {"min_batch": min_batch, "max_batch": max_batch, "sizes": sizes}
    program = trace(
        generator, example, dtype=dtype, device=device, channels_last=gpu is not None, **shapes, rewrites=rewrites
    )
    io = described(dtype, example)
    signature = Signature(min_batch, max_batch, tuple(example.shape[1:]), io["dtype"], sizes)
    facts = signature.to_text() | {"device": device.type, "cpu": instructions()}
    options = {
        # Weights become constants, which the compiler lays out as its kernels read them: on a CPU 1.4 times as fast.
        "freezing": True,
        "max_autotune": max_autotune,
        "coordinate_descent_tuning": max_autotune,
        "aot_inductor.metadata": facts,
        "aot_inductor.precompile_headers": False,  # costs more than one export gains by it
    }
    package = BytesIO()  # where the disk is full, torch's own way to a file ends the process
    try:
        with torch.no_grad(), quiet():
            torch._inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=options)
    except Exception as error:  # of a Python compiler, a C++ compiler and a linker: each fails in its own way
        if of_gpu(error):
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"AOT Inductor cannot build this generator in {dtype} ({why}): choose another backend.precision, or"
            " backend=exported_program"
        ) from error
    (folder / "generator.pt2").write_bytes(package.getbuffer())
    return Program(
        backend="aot_inductor",
        file="generator.pt2",
        **io,
        **shapes,
        versions=versions("triton") if gpu else versions(),
        gpu=gpu,
    )


def load(program: Program, folder: Path, *, device: torch.device) -> Run:
    """The package as a function on `device`; on a GPU it replays CUDA graphs, see `p2p.deploy.cuda_graph.Captured`.

    Raises:
        ValueError: the package is damaged, or was made for another kind of device or CPU; and later, for an input
            of another shape or dtype. Compiled code trusts its input, so this is checked before.
    """
    path = folder / program.file
    on_gpu = device.type == "cuda"
    with quiet():  # its own remarks on other devices, which are refused below
        try:
            facts = torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(str(path), "model")
            signature = Signature.from_text(facts)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a package of AOT Inductor, or is damaged: export again") from error
        lacking = sorted(set(facts["cpu"].split()).difference(instructions().split()))
        if facts["device"] != device.type:
            raise ValueError(f"{path} was compiled for {facts['device']}, not for {device.type}: export here")
        if not on_gpu and lacking:
            raise ValueError(f"{path} was compiled for CPUs with {lacking[0]}, which this one lacks: export here")
        index = -1 if device.index is None else device.index
        # Not by `aoti_load_package`, which asks the C++ compiler what the CPU can do, for half a minute on a busy host.
        # Single-threaded on a GPU: a CUDA graph cannot record the events and locks of threads.
        package = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", on_gpu, 1, index)

    def run(input_NCHW: torch.Tensor) -> torch.Tensor:
        signature.check(input_NCHW)
        [output_NCHW] = package.run([input_NCHW.contiguous()])
        return output_NCHW

    return Captured(run, device=device, dtype=getattr(torch, signature.dtype)) if on_gpu else run
