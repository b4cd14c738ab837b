"""An exported program as models of NVIDIA's Triton Inference Server: 8-bit pixels in and out, uint8 (N, H, W, C).

    DIR/mine/config.pbtxt     see p2p.deploy.triton_config
    DIR/mine/1/model.onnx     the program, as it is

An ONNX file converts pixels itself. A TensorRT engine does not, so it stands between two small ONNX models, and `mine`
is the ensemble of the three. (`backend=triton` has nothing to do with this: that Triton is a language for kernels.)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from p2p.deploy import artifact, fields, tensorrt_runtime
from p2p.deploy.backends import onnx, torch_tensorrt
from p2p.deploy.manifest import Manifest
from p2p.deploy.pixels import to_frames, to_images
from p2p.deploy.precision import DTYPES
from p2p.deploy.triton_config import Tensor, batching, head, instances, parameter, steps, warmup
from p2p.system.atomic import folder_beside, sweep
from p2p.system.digest import sha256

MARK = "p2p.json"  # of a model's folder: digests of the files that were written there
MAX_BATCH = 32  # where the program takes any
BACKENDS = ("onnx", "torch_tensorrt")  # whose programs the server runs
SUFFIXES = ("_to_images", "_engine", "_to_frames")  # of the models that serve an engine


class Model(NamedTuple):
    """A folder of the repository.

    Attributes:
        config: the text of config.pbtxt.
        file: name of the model's file, None: it has none.
        contents: of the file.
    """

    config: str
    file: str | None
    contents: bytes


def check(backend: str, *, frames: bool, min_batch: int, name: str) -> None:
    """Raise a ValueError if no program of these settings can be served so, before it is made.

    Args:
        backend: its name.
        frames: whether the program is to take 8-bit pixels.
        min_batch: the smallest batch that it is to take.
        name: of the model.
    """
    if backend not in BACKENDS or not frames:
        raise ValueError(
            "triton_repository= needs a program that Triton Inference Server runs and that takes 8-bit pixels: add"
            f" backend={backend if backend in BACKENDS else 'onnx'} frames=true"
            + ("" if backend in BACKENDS else ", or backend=torch_tensorrt frames=true on a GPU")
        )
    if min_batch != 1:
        raise ValueError(
            f"backend.min_batch={min_batch} does not suit triton_repository=, because the server sends single images,"
            " too: leave it out"
        )
    if not fields.bare_name(name):
        raise ValueError(
            f"name={name} cannot be a model's name on Triton Inference Server: use letters, digits, _, - and ."
        )
    if backend == "torch_tensorrt":
        if torch_tensorrt.flavour() != "tensorrt":
            raise ValueError(
                "triton_repository= needs an engine of TensorRT, and TensorRT-RTX is installed, whose engines Triton"
                " Inference Server does not load: use backend=onnx frames=true"
            )
        if reason := onnx.unavailable():
            raise ValueError(f"triton_repository= writes the conversions of pixels as ONNX, and {reason}")


def place_for(repository: Path, name: str) -> Path:
    """A model's folder; raise a ValueError if something else is there, see `p2p.deploy.artifact.place_for`."""
    return artifact.place_for(repository / name, said=f"{repository / name} of triton_repository=", check=_check_ours)


def write(exported: Path, repository: Path, name: str) -> list[Path]:
    """Write the models of an artifact, each in one step, the one that clients call last; return their folders.

    Other models of the repository are left alone.

    Args:
        exported: the artifact, see `p2p.deploy.export`.
        repository: the folder; made if it is not there.
        name: of the model that clients call.

    Raises:
        ValueError: another folder of one of these names is there.
    """
    models = models_of(exported, name)
    folders = [place_for(repository, each) for each in models]
    for folder, model in zip(folders, models.values(), strict=True):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        with folder_beside(folder) as new:
            (new / "1").mkdir()
            (new / "config.pbtxt").write_text(model.config)
            if model.file is not None:
                (new / "1" / model.file).write_bytes(model.contents)
            digests = {str(path.relative_to(new)): sha256(path) for path in sorted(new.rglob("*")) if path.is_file()}
            (new / MARK).write_text(json.dumps(digests, indent=2) + "\n")
            artifact.put(new, folder, check=_check_ours)
    return folders


def models_of(exported: Path, name: str) -> dict[str, Model]:
    """By name, those that another needs first."""
    manifest = Manifest.load(exported)
    program = manifest.program
    contents = (exported / program.file).read_bytes()
    dims, dims_out = _dims(manifest, manifest.input_shape), _dims(manifest, manifest.output_shape)
    taken, given = Tensor("input_NHWC", "uint8", dims), Tensor("output_NHWC", "uint8", dims_out)
    origin = parameter("p2p", json.dumps(asdict(manifest)))
    most = program.max_batch or MAX_BATCH
    if program.backend == "torch_tensorrt":
        first, last = tensorrt_runtime.names(exported / program.file, "tensorrt")
        return around_engine(manifest, name, contents, (first, last), taken, given, origin)
    channels, *size = manifest.input_shape
    config = head(name, "onnxruntime_onnx", taken, given, max_batch=most) + instances("KIND_AUTO") + batching(most)
    config += warmup(taken, (*size, channels), max_batch=most) + origin
    return {name: Model(config, "model.onnx", contents)}


def around_engine(
    manifest: Manifest,
    name: str,
    contents: bytes,
    tensors: tuple[str, str],
    taken: Tensor,
    given: Tensor,
    origin: str,
) -> dict[str, Model]:
    """An engine, the two conversions of pixels, and the ensemble of the three, from `taken` to `given`."""
    program = manifest.program
    most, dtype = program.max_batch or MAX_BATCH, str(DTYPES[program.precision]).removeprefix("torch.")
    (*size, channels), (*size_out, channels_out) = taken.dims, given.dims
    before = Tensor("frames_NHWC", "uint8", taken.dims), Tensor("images_NCHW", dtype, (channels, *size))
    within = Tensor(tensors[0], dtype, (channels, *size)), Tensor(tensors[1], dtype, (channels_out, *size_out))
    after = Tensor("images_NCHW", dtype, (channels_out, *size_out)), Tensor("frames_NHWC", "uint8", given.dims)
    order = list(zip([f"{name}{suffix}" for suffix in SUFFIXES], *zip(before, within, after, strict=True), strict=True))

    def config(place: int, platform: str, kind: str) -> str:
        own, inputs, outputs = order[place]
        return head(own, platform, inputs, outputs, max_batch=most) + instances(kind)

    engine = config(1, "tensorrt_plan", "KIND_GPU") + batching(most)
    engine += warmup(within[0], manifest.input_shape, max_batch=most)
    if program.sizes is None:  # which are recorded for the sizes that a config names
        engine += "optimization { cuda { graphs: true } }\n"
    models = (
        Model(config(0, "onnxruntime_onnx", "KIND_AUTO"), "model.onnx", to_images(channels, dtype)),
        Model(engine, "model.plan", contents),
        Model(config(2, "onnxruntime_onnx", "KIND_AUTO"), "model.onnx", to_frames(channels_out, dtype)),
        Model(head(name, "ensemble", taken, given, max_batch=most) + steps(order, taken, given) + origin, None, b""),
    )
    return dict(zip(names_of("torch_tensorrt", name), models, strict=True))


def names_of(backend: str, name: str) -> list[str]:
    """Of the models that serve a program, the one that clients call last."""
    return [f"{name}{suffix}" for suffix in (*SUFFIXES, "")] if backend == "torch_tensorrt" else [name]


def _dims(manifest: Manifest, shape: list[int]) -> tuple[int, int, int]:
    """Of frames: rows, columns, channels; -1 for any."""
    channels, rows, columns = shape
    return (rows, columns, channels) if manifest.program.sizes is None else (-1, -1, channels)


def _check_ours(folder: Path, said: str) -> None:
    """Raise a ValueError if a folder holds what `write` did not write, or what was changed since."""
    try:
        digests = dict(json.loads((folder / MARK).read_text()))
    except (OSError, ValueError, TypeError):
        digests = {}
    for path in sorted(folder.rglob("*")):
        inside = str(path.relative_to(folder))
        if path.is_dir() if inside == "1" else inside == MARK or digests.get(inside) == _digest(path):
            continue
        raise ValueError(f"{said} holds {inside}, which p2p did not write, or which was changed since: move it away")


def _digest(path: Path) -> str:
    """Of a file; nothing's of a folder."""
    return sha256(path) if path.is_file() else "a folder"
