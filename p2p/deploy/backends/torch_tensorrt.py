"""Torch-TensorRT: the generator as a TensorRT engine, on NVIDIA GPUs.

Works with both flavours, TensorRT (`torch-tensorrt`) and TensorRT-RTX (`torch-tensorrt-rtx`); the manifest says which.
Torch-TensorRT converts the network and is not needed any more when the engine is loaded. It imports nowhere without a
driver, hence only where it is used.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from p2p.batch import from_frames, to_frames
from p2p.deploy import tensorrt_runtime
from p2p.deploy.backend import Run
from p2p.deploy.cuda_graph import Captured
from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import Precision, described, dtype_of
from p2p.deploy.rewrite import Frames
from p2p.deploy.sizes import Sizes
from p2p.deploy.torch_export import trace
from p2p.system.gpu_faults import memory_full, of_gpu
from p2p.system.quiet import quiet

RTX = "torch-tensorrt-rtx"
CONVERTERS = ("torch-tensorrt", RTX)
RUNTIMES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}  # what each is installed by
VERSIONS = dict.fromkeys(RUNTIMES.values(), "exact")  # engines are no exchange format


def unavailable() -> str | None:
    """Why Torch-TensorRT cannot run here, as half a sentence; None if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA GPU"
    try:
        _import()
    except Exception as error:  # missing package, missing library, wrong driver: each fails in its own way
        return f"torch_tensorrt cannot be imported ({str(error).splitlines()[0]})"
    return None


def flavour() -> str:
    """The library that its engines are for: "tensorrt_rtx" if that one's Torch-TensorRT is installed, or "tensorrt"."""
    return "tensorrt_rtx" if RTX in versions(RTX) else "tensorrt"


def export(
    generator: nn.Module,
    example: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | None = None,
    min_batch: int = 1,
    max_batch: int | None = None,
    sizes: Sizes | None = None,
    opt_batch: int | None = None,
    tf32: bool = False,
    rewrites: Sequence[str] = ("last", "blocks"),
) -> Program:
    """Write `generator.engine`, a plain engine, which trtexec, Triton's server and C++ load as well.

    Its engines cast nothing to uint8 (github.com/pytorch/TensorRT/issues/3247). So of `rewrite.Frames` the engine is
    that of the network inside, and `load` has PyTorch convert before and after it, in one CUDA graph.

    Args:
        generator: in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W), of `rewrite.Frames` uint8 (N, H, W, C); fixes all but the batch.
        precision: "fp16" (the default), "bf16" or "fp32".
        min_batch, max_batch: the batches it takes, None: 32. Equal: that one alone, which TensorRT makes faster.
        sizes: heights and widths that it takes; from which on a profile is made; None: those of the example alone.
        opt_batch: the batch in between that the engine is tuned for; None: the largest.
        tf32: let "fp32" round the factors of its products to TF32's ten bits.
        rewrites: of the network before it is exported, see `p2p.deploy.rewrite.apply`; they change its speed alone.

    Raises:
        ValueError: Torch-TensorRT cannot run here, cannot build this, or the batches contradict each other.
    """
    reason = unavailable()
    if reason:
        raise ValueError(f"backend=torch_tensorrt cannot be used, because {reason}: use backend=auto")
    torch_tensorrt, name = _import()
    max_batch = max(32, min_batch) if max_batch is None else max_batch
    opt_batch = max_batch if opt_batch is None else opt_batch
    if not min_batch <= opt_batch <= max_batch:
        raise ValueError(
            f"backend.opt_batch={opt_batch} is not from min_batch={min_batch} to max_batch={max_batch}: choose others"
        )
    # Strong typing: the engine computes in the dtypes of the module. The arguments that once set a precision
    # are gone in 2.14, which ignores unknown arguments without a word.
    dtype, device = dtype_of(precision or "fp16"), torch.device("cuda")
    io = described(dtype, example)
    if isinstance(generator, Frames):
        generator, example = generator.network, from_frames(example)
    shapes: dict[str, Any] = {"min_batch": min_batch, "max_batch": max_batch, "sizes": sizes}
    program = trace(generator, example, dtype=dtype, device=device, **shapes, rewrites=rewrites)
    channels, *size = example.shape[1:]
    least, best, most = (size, size, size) if sizes is None else (sizes.min, sizes.opt, sizes.max)
    profile = {
        "min_shape": (min_batch, channels, *least),
        "opt_shape": (opt_batch, channels, *best),
        "max_shape": (max_batch, channels, *most),
    }
    if len({*profile.values()}) == 1:
        profile = {"shape": profile["max_shape"]}
    *_, errors = tensorrt_runtime.runtime(name)
    errors.clear()
    try:
        with quiet():  # it warns of its own graph surgery
            engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                program, [torch_tensorrt.Input(**profile, dtype=dtype)], disable_tf32=not tf32
            )
    except Exception as error:  # TensorRT says no in many ways; TensorRT-RTX 1.4 to transposed convolutions in bf16
        if of_gpu(error):
            raise
        if memory_full(said := RuntimeError("; ".join(errors))):  # 2.11 raises an error of its own in place of any
            raise said from error
        raise ValueError(
            f"TensorRT cannot build this generator in {dtype}: choose another backend.precision, or"
            " backend=exported_program"
        ) from error
    (folder / "generator.engine").write_bytes(engine)
    return Program(
        backend="torch_tensorrt",
        file="generator.engine",
        **io,
        **shapes,
        versions=versions(*CONVERTERS, *RUNTIMES.values()),
        gpu=torch.cuda.get_device_name(),
    )


def load(program: Program, folder: Path, *, device: torch.device) -> Run:
    """The engine as a function on `device`, which replays CUDA graphs, see `p2p.deploy.cuda_graph.Captured`.

    Raises:
        ValueError: its runtime is not installed, or an earlier version of p2p has written it; and later, for an input
            of another shape or dtype.
        RuntimeError: TensorRT does not load it, and why.
    """
    path = folder / program.file
    if path.suffix != ".engine":
        raise ValueError(f"{path} is of an earlier version of p2p, which needed Torch-TensorRT: export again")
    name = "tensorrt_rtx" if RTX in program.versions else "tensorrt"
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"{path} needs the package {name}, which is not installed: pip install {RUNTIMES[name]}")
    run, signature = tensorrt_runtime.load(path, name, device=device, sizes=program.sizes)
    dtype = getattr(torch, signature.dtype)
    if program.dtype != "uint8":
        return Captured(run, device=device, dtype=dtype)

    def of_frames(frames_NHWC: torch.Tensor) -> torch.Tensor:
        return to_frames(run(from_frames(frames_NHWC).to(dtype)))

    return Captured(of_frames, device=device, dtype=torch.uint8)


def _import() -> tuple[ModuleType, str]:
    """Torch-TensorRT without its greetings, which are for its developers, and the name of the TensorRT that it uses."""
    for name in ("torch_tensorrt", "torch_tensorrt [TensorRT Conversion Context]"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    name = flavour()
    tensorrt_runtime.runtime(name)  # before, see there
    import torch_tensorrt

    return torch_tensorrt, name
