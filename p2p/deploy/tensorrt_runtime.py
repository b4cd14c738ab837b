"""TensorRT's own runtime: an engine's file as a function, without Torch-TensorRT, which takes 11 to 15 s to import.

TensorRT compiles its kernels when it builds an engine. TensorRT-RTX compiles them when an engine first meets a batch
size, and can keep them, see `_with_kernels`.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from p2p.deploy.signature import Signature
from p2p.deploy.sizes import Sizes
from p2p.system import atomic

PLACE = re.compile(r"\s*In \w+ at [^\s()]+")  # in TensorRT's sources, at the end of what it logs
DIGEST = hashlib.sha256().digest_size  # bytes, of what follows it in a file of kernels
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@cache
def runtime(name: str) -> tuple[ModuleType, Any, list[str]]:
    """The library `tensorrt` or `tensorrt_rtx`, its runtime, and the errors that it has logged.

    TensorRT has one logger in a process, the first one. So this comes before the import of torch_tensorrt, which would
    print what it logs.
    """
    library = importlib.import_module(name)
    errors: list[str] = []

    class Log(library.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity in (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR):
                errors.append(PLACE.sub("", message))

    return library, library.Runtime(Log()), errors


def load(
    path: Path, name: str, *, device: torch.device, sizes: Sizes | None = None
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Signature]:
    """An engine of one input and one output, both (N, C, H, W), as a function on `device`, and what it takes.

    The function queues its work on the current stream, where it may be recorded after a first call with the same
    shape. Calls must not overlap: they share one workspace.

    Args:
        path: of the engine.
        name: of the library that it was built with, `tensorrt` or `tensorrt_rtx`.
        sizes: heights and widths that it takes, of one that was built for several.

    Raises:
        RuntimeError: TensorRT says no, and why.
    """
    library, runs, errors = runtime(name)
    errors.clear()

    def done(result: Any) -> Any:
        if not result:  # None or False; TensorRT raises nothing
            raise RuntimeError("; ".join(errors) or f"{name} does not say why")
        return result

    with torch.cuda.device(device):
        engine = done(runs.deserialize_cuda_engine(path.read_bytes()))
        kernels = config = None
        if name == "tensorrt_rtx":
            config, kernels = _with_kernels(library, engine, path.with_suffix(".kernels"))
            errors.clear()  # of kernels that were damaged
        context = done(engine.create_execution_context(*filter(None, [config])))
    held = (engine, kernels, config, context)  # a tuple frees its last first: none outlives what it was made of
    taken, given = _names(library, engine)
    signature, dtype = _signature(library, engine, taken, sizes), _dtype(library, engine, given)
    met: set[torch.Size] = set()

    def run(input_NCHW: torch.Tensor) -> torch.Tensor:
        signature.check(input_NCHW)
        input_NCHW, (_, kernels, _, context) = input_NCHW.contiguous(), held
        done(context.set_input_shape(taken, tuple(input_NCHW.shape)))
        output_NCHW = torch.empty(tuple(context.get_tensor_shape(given)), dtype=dtype, device=device)
        done(context.set_tensor_address(taken, input_NCHW.data_ptr()))
        done(context.set_tensor_address(given, output_NCHW.data_ptr()))
        done(context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream))
        if kernels is not None and input_NCHW.shape not in met:
            met.add(input_NCHW.shape)
            _keep(kernels, path.with_suffix(".kernels"))
        return output_NCHW

    return run, signature


def names(path: Path, name: str) -> tuple[str, str]:
    """What the input and the output of an engine are called.

    Args:
        path: of the engine.
        name: of the library that it was built with, `tensorrt` or `tensorrt_rtx`.

    Raises:
        RuntimeError: TensorRT does not load it, and why.
    """
    library, runs, errors = runtime(name)
    errors.clear()
    engine = runs.deserialize_cuda_engine(path.read_bytes())
    if not engine:
        raise RuntimeError("; ".join(errors) or f"{name} does not say why")
    return _names(library, engine)


def _with_kernels(library: ModuleType, engine: Any, path: Path) -> tuple[Any, Any]:
    """How TensorRT-RTX is to run an engine, and the compiled kernels that it starts with, of a file if there is one.

    What the file lacks is compiled at once, when a batch size is first met: left to itself TensorRT-RTX does that in
    the background and changes over at some later call, which would spoil a CUDA graph that is being recorded and round
    differently. A file that is damaged, of another version or GPU, or cannot be read or written costs that time again
    and nothing else.
    """
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = library.DynamicShapesKernelSpecializationStrategy.EAGER
    kernels = config.create_runtime_cache()
    with suppress(OSError):
        contents = path.read_bytes() if path.is_file() else b""
        digest, blob = contents[:DIGEST], contents[DIGEST:]
        if digest == hashlib.sha256(blob).digest():  # a damaged one would run on the GPU as far as it goes
            kernels.deserialize(blob)  # or says that it is of another version or GPU, and stays empty
    config.set_runtime_cache(kernels)
    return config, kernels


def _keep(kernels: Any, path: Path) -> None:
    """Write all kernels that were compiled by now to their file, if they are others; an artifact may be read-only."""
    if (serialized := kernels.serialize()) is None:  # it says no, and has logged why
        return
    blob = bytes(memoryview(serialized))
    contents = hashlib.sha256(blob).digest() + blob
    with suppress(OSError):
        if not path.is_file() or path.read_bytes() != contents:
            atomic.write(path, contents, durable=False)


def _names(library: ModuleType, engine: Any) -> tuple[str, str]:
    taken, given = sorted(
        (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)),
        key=lambda each: engine.get_tensor_mode(each) != library.TensorIOMode.INPUT,
    )
    return taken, given


def _signature(library: ModuleType, engine: Any, name: str, sizes: Sizes | None) -> Signature:
    """The inputs of an engine; the profile of one for several batches or sizes has the smallest and the largest."""
    shape = low = high = tuple(engine.get_tensor_shape(name))
    if -1 in shape:
        low, _, high = (tuple(each) for each in engine.get_tensor_profile_shape(name, 0))
    dtype = str(_dtype(library, engine, name)).removeprefix("torch.")
    return Signature(low[0], high[0], low[1:], dtype, sizes)


def _dtype(library: ModuleType, engine: Any, name: str) -> torch.dtype:
    kind = engine.get_tensor_dtype(name)
    [dtype] = [each for each in DTYPES if getattr(library, str(each).removeprefix("torch.")) == kind]
    return dtype
