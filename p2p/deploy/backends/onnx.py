"""ONNX: the generator in the exchange format that most runtimes read, run here by ONNX Runtime.

The packages of the extra `onnx` are imported where they are used. With `onnxruntime-gpu` in place of `onnxruntime`,
which cannot be installed side by side, it runs on NVIDIA GPUs as well.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2p.deploy.backend import Run
from p2p.deploy.manifest import Program, versions
from p2p.deploy.precision import Precision, described, dtype_of
from p2p.deploy.signature import Signature
from p2p.deploy.sizes import Sizes
from p2p.deploy.torch_export import trace
from p2p.system.quiet import quiet

OPSET = 18  # what torch.onnx writes without converting it, and runtimes since 2023 read
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
VERSIONS: dict[str, str] = {}  # which a file must be loaded with: every runtime that knows the opset
LARGEST = 2**31 - 2**20  # bytes of weights; the format is a protocol buffer, whose limit is 2 GiB


def unavailable() -> str | None:
    """Why it cannot run here, as half a sentence; None if it can, which on a GPU takes onnxruntime-gpu besides."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    return f"{' and '.join(missing)} cannot be imported (pip install {' '.join(missing)})" if missing else None


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
    """Write `generator.onnx`, opset 18, from `input_NCHW` to `output_NCHW`, or NHWC of frames, weights inside.

    Args:
        generator: in eval mode, float32, on the CPU.
        example: float32 (N, C, H, W), of `rewrite.Frames` uint8 (N, H, W, C), N at least 1; fixes all but the batch.
        precision: "fp16" or "fp32"; None: fp16 if there is a GPU, else fp32. ONNX Runtime's CPU kernels compute fp16
            in fp32, with conversions around them; it has no convolution in bf16.
        min_batch, max_batch: the batches it takes; None: any above. Equal: that one alone.
        sizes: heights and widths that it takes; None: those of the example alone.
        rewrites: of the network before it is exported, see `p2p.deploy.rewrite.apply`; they change its speed alone.

    Raises:
        ValueError: a package is missing, the network is too large for the format or uses what it does not have, or an
            argument does not suit.
    """
    reason = unavailable()
    if reason:
        raise ValueError(f"backend=onnx cannot be used, because {reason}: install them, or use backend=auto")
    precision = precision or ("fp16" if torch.cuda.is_available() else "fp32")
    if precision == "bf16":
        raise ValueError("backend.precision=bf16 is not for backend=onnx, whose runtime cannot convolve it: use fp16")
    dtype = dtype_of(precision)
    size = dtype.itemsize * sum(parameter.numel() for parameter in generator.parameters())
    if size > LARGEST:
        raise ValueError(
            f"the generator has {size / 2**30:.1f} GiB of weights, an ONNX file at most 2: use backend=auto"
        )
    shapes: dict[str, Any] = {"min_batch": min_batch, "max_batch": max_batch, "sizes": sizes}
    program = trace(generator, example, dtype=dtype, **shapes, rewrites=rewrites)
    io = described(dtype, example)
    signature = Signature(min_batch, max_batch, tuple(example.shape[1:]), io["dtype"], sizes)
    path = folder / "generator.onnx"
    layout = "NCHW" if example.is_floating_point() else "NHWC"
    names = {"input_names": [f"input_{layout}"], "output_names": [f"output_{layout}"]}
    try:
        with quiet():
            torch.onnx.export(program, f=path, dynamo=True, opset_version=OPSET, external_data=False, **names)
    except OSError:  # the disk's
        raise
    except Exception as error:  # of operators that ONNX does not have, mostly; each stage fails in its own way
        raise ValueError("this generator cannot be written as ONNX: use backend=exported_program") from error
    _describe(path, signature)
    return Program(
        backend="onnx",
        file="generator.onnx",
        **io,
        **shapes,
        versions=versions(*PACKAGES, "onnxruntime-gpu"),
    )


def load(program: Program, folder: Path, *, device: torch.device) -> Run:
    """The model as a function on `device`; reads and writes the tensors' own memory, also on a GPU.

    Raises:
        ValueError: ONNX Runtime is not installed, or not for GPUs, or the file is damaged; and later, for an input of
            another shape or dtype.
    """
    path = folder / program.file
    if importlib.util.find_spec("onnxruntime") is None:
        raise ValueError(f"{path} needs the package onnxruntime, which is not installed: pip install onnxruntime")
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # what matters is raised as well
    on_gpu = device.type == "cuda"
    provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
    no_gpu = f"{path} cannot run on device=cuda with this onnxruntime: pip install onnxruntime-gpu in its place"
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"{no_gpu}, or use device=cpu")
    options, choices = onnxruntime.SessionOptions(), {}
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    if on_gpu:
        stream = torch.cuda.Stream(device)
        choices = {"device_id": str(stream.device.index), "user_compute_stream": str(stream.cuda_stream)}
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[(provider, choices)])
        signature = Signature.from_text(session.get_modelmeta().custom_metadata_map)
    except Exception as error:  # of a class for every reason, none of them public
        raise ValueError(f"{path} cannot be read by ONNX Runtime, or is damaged: export again") from error
    if session.get_providers()[0] != provider:  # its libraries do not fit CUDA or cuDNN here: it has gone to the CPU
        raise ValueError(f"{no_gpu}, of a version for CUDA {torch.version.cuda}, or use device=cpu")
    [taken], [given] = session.get_inputs(), session.get_outputs()
    dtype = getattr(torch, signature.dtype)
    element = {"float32": 1, "uint8": 2, "float16": 10}[signature.dtype]  # TensorProto.DataType

    def run(images: torch.Tensor) -> torch.Tensor:
        signature.check(images)
        images = images.contiguous()
        shape = [len(images), *given.shape[1:]]
        if signature.sizes is not None:
            rows = 1 if dtype == torch.uint8 else 2
            shape[rows : rows + 2] = images.shape[rows : rows + 2]
        outputs = torch.empty(shape, dtype=dtype, device=device)
        binding = session.io_binding()
        for bind, name, tensor in (
            (binding.bind_input, taken.name, images),
            (binding.bind_output, given.name, outputs),
        ):
            bind(name, device.type, tensor.device.index or 0, element, list(tensor.shape), tensor.data_ptr())
        call = onnxruntime.RunOptions()
        if not on_gpu:
            session.run_with_iobinding(binding, call)
            return outputs
        call.add_run_config_entry("disable_synchronize_execution_providers", "1")  # the streams wait, not the host
        stream.wait_stream(torch.cuda.current_stream(device))
        session.run_with_iobinding(binding, call)
        for tensor in (images, outputs):
            tensor.record_stream(stream)
        torch.cuda.current_stream(device).wait_stream(stream)
        return outputs

    return run


def _describe(path: Path, signature: Signature) -> None:
    """Check the file, name what may vary in its shapes, and write into it what it takes."""
    import onnx

    model = onnx.load(path)
    taken = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]  # "s21", "32*s39"
    names = {
        "batch": taken[0],
        "rows": taken[rows := 1 if signature.dtype == "uint8" else 2],
        "columns": taken[rows + 1],
    }
    symbols = {re.search(r"s\d+", text)[0]: name for name, text in names.items() if text}  # no text where it is fixed
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.dim_param:  # a number, which even an empty name would replace
                continue
            for symbol, name in symbols.items():
                dimension.dim_param = re.sub(rf"\b{symbol}\b", name, dimension.dim_param)
    onnx.helper.set_model_props(model, signature.to_text())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
