"""Torch-TensorRT: the generator as a TensorRT engine, on NVIDIA GPUs.

Works with both flavours, TensorRT (`torch-tensorrt`) and TensorRT-RTX (`torch-tensorrt-rtx`); the manifest
says which. Neither imports without a driver, so they are imported where they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from p2p.batch import from_frames, to_frames
from p2p.deploy.backends.exported_program import taken, trace
from p2p.deploy.cuda_graph import capture
from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import Precision, described, dtype_of
from p2p.deploy.rewrite import Frames
from p2p.system.gpu_faults import of_gpu
from p2p.system.quiet import quiet

PACKAGES = ("torch-tensorrt", "torch-tensorrt-rtx", "tensorrt", "tensorrt-rtx-cu13")
FILE, OF_FRAMES = "generator.pt2", "generator.frames.pt2"  # not every version's `save` can add a note
VERSIONS = {"torch": "minor"} | dict.fromkeys(PACKAGES, "exact")  # engines are no exchange format


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
    example: torch.Tensor,
    folder: Path,
    *,
    precision: Precision | None = None,
    min_batch: int = 1,
    max_batch: int | None = None,
    opt_batch: int | None = None,
    tf32: bool = False,
    rewrites: Sequence[str] = ("last", "blocks"),
) -> Program:
    """Write `generator.pt2`, an exported program around one TensorRT engine.

    Its engines cast nothing to uint8 (github.com/pytorch/TensorRT/issues/3247). So of `rewrite.Frames` the same is
    written as `generator.frames.pt2`, and `load` has PyTorch convert before and after the engine, in one CUDA graph.

    Args:
        generator: in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W), of `rewrite.Frames` uint8 (N, H, W, C); fixes all but the batch.
        precision: "fp16" (the default), "bf16" or "fp32".
        min_batch, max_batch: the batches it takes, None: 32. Equal: that one alone, which TensorRT makes faster.
        opt_batch: the batch in between that the engine is tuned for; None: the largest.
        tf32: let "fp32" round the factors of its products to TF32's ten bits.
        rewrites: of the network before it is exported, see `p2p.deploy.rewrite.apply`; they change its speed alone.

    Raises:
        ValueError: Torch-TensorRT cannot run here, cannot build this, or the batches contradict each other.
    """
    reason = unavailable()
    if reason:
        raise ValueError(f"backend=torch_tensorrt cannot be used, because {reason}: use backend=auto")
    torch_tensorrt = _import()
    max_batch = max(32, min_batch) if max_batch is None else max_batch
    opt_batch = max_batch if opt_batch is None else opt_batch
    if not min_batch <= opt_batch <= max_batch:
        raise ValueError(
            f"backend.opt_batch={opt_batch} is not from min_batch={min_batch} to max_batch={max_batch}: choose others"
        )
    # Strong typing: the engine computes in the dtypes of the module. The arguments that once set a precision
    # are gone in 2.14, which ignores unknown arguments without a word.
    dtype, device = dtype_of(precision or "fp16"), torch.device("cuda")
    io, file = described(dtype, example), FILE
    if isinstance(generator, Frames):
        generator, example, file = generator.network, from_frames(example), OF_FRAMES
    batches = {"min_batch": min_batch, "max_batch": max_batch}
    program = trace(generator, example, dtype=dtype, device=device, **batches, rewrites=rewrites)
    image = tuple(example.shape[1:])
    static = min_batch == max_batch
    profile = {"min_shape": min_batch, "opt_shape": opt_batch, "max_shape": max_batch}
    sizes = {"shape": (max_batch, *image)} if static else {key: (size, *image) for key, size in profile.items()}
    largest = torch.zeros(max_batch, *image, dtype=dtype, device=device)
    varying = None if static else ({0: torch.export.Dim("batch", min=min_batch, max=max_batch)},)
    path = str(folder / file)
    try:
        with quiet():  # it warns of its own graph surgery
            inputs = [torch_tensorrt.Input(**sizes, dtype=dtype)]
            compiled = torch_tensorrt.dynamo.compile(
                program, inputs, require_full_compilation=True, disable_tf32=not tf32
            )
            torch_tensorrt.save(compiled, path, inputs=[largest], dynamic_shapes=varying, retrace=False)
    except Exception as error:  # TensorRT says no in many ways; TensorRT-RTX 1.4 to transposed convolutions in bf16
        if of_gpu(error):
            raise
        raise ValueError(
            f"TensorRT cannot build this generator in {dtype}: choose another backend.precision, or"
            " backend=exported_program"
        ) from error
    return Program(
        backend="torch_tensorrt",
        file=file,
        **io,
        min_batch=min_batch,
        max_batch=max_batch,
        versions=versions(*PACKAGES),
        gpu=torch.cuda.get_device_name(),
    )


def load(path: Path, *, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The engine as a function on `device`, which replays CUDA graphs, see `p2p.deploy.cuda_graph.capture`.

    For an engine of several batch sizes TensorRT-RTX compiles kernels when it first meets one. From version 2.14 on it
    does so at once, and they are kept in a file `.kernels` beside the program, so that the next process starts with
    them. Before, it does so in the background, and what a graph records is what it has by then.
    """
    torch_tensorrt = _import()  # registers the operator that runs engines
    with torch.cuda.device(device), quiet():
        program = torch.export.load(path)  # with an engine inside, which is code: no look before would change that
    module, dtype = program.module(), getattr(torch, taken(program).dtype)
    # An attribute, because it must live as long as the engines.
    module.kernels = keep_kernels(program.constants.values(), path.with_suffix(".kernels"), torch_tensorrt)
    if path.name != OF_FRAMES:
        return capture(module, device=device, dtype=dtype)

    def of_frames(frames_NHWC: torch.Tensor) -> torch.Tensor:
        return to_frames(module(from_frames(frames_NHWC).to(dtype)))

    return capture(of_frames, device=device, dtype=torch.uint8)


def keep_kernels(constants: Iterable[object], path: Path, torch_tensorrt: ModuleType) -> object | None:
    """Have a program's engines start with the compiled kernels of a file, and compile what they lack at once.

    TensorRT compiles kernels when it builds an engine, TensorRT-RTX when it runs one, unless told otherwise in the
    background: then it changes over to them at some later call, which rounds differently. Returns what writes theirs
    to the file when it is freed; None where they cannot be had, before version 2.14 and with TensorRT. A file that
    cannot be read or written costs that time again and nothing else.

    Args:
        constants: the program's, the engines among them.
        path: of the file.
        torch_tensorrt: the library.
    """
    if not hasattr(torch_tensorrt.runtime, "RuntimeCache") or not torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
        return None
    kernels = torch_tensorrt.runtime.RuntimeCache(path=str(path), autosave_on_del=True)
    with suppress(Exception):  # damaged, or of another GPU
        kernels.load()
    for engine in constants:
        if isinstance(engine, torch.ScriptObject):  # of the C++ runtime: "eager", no graph of its own, these kernels
            engine.update_runtime_settings(1, 0, kernels._handle)
        elif hasattr(engine, "update_runtime_settings"):
            settings = {"dynamic_shapes_kernel_specialization_strategy": "eager", "runtime_cache": kernels}
            engine.update_runtime_settings(torch_tensorrt.runtime.RuntimeSettings(**settings))
    return kernels


def _import():
    """Import torch_tensorrt without its greetings, which are for its developers."""
    for name in ("torch_tensorrt", "torch_tensorrt [TensorRT Conversion Context]"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import torch_tensorrt

    return torch_tensorrt
