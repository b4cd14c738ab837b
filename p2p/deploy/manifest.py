"""The record beside an exported program: what is needed to run it, and which run it comes from."""

from __future__ import annotations

import ctypes
import json
import platform
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from p2p.data.reading import Reading, from_facts
from p2p.deploy import fields
from p2p.deploy.sizes import Sizes
from p2p.image_size import ImageSize
from p2p.system import atomic
from p2p.system.digest import sha256

if TYPE_CHECKING:
    import torch

    from p2p.data.pairs import Direction
    from p2p.data.transforms.sizing import Preprocess

FILE = "manifest.json"
TELLS_NORMS = ("exported_program", "pytorch")  # backends in which PyTorch calls each norm
KEPT = (".kernels", ".kernels.lock", ".kernels.tmp")  # files beside a program, of its name: see `Program`


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, torch and those of the named distributions that are installed.

    A name stands for all its spellings, as for pip: that of tensorrt-rtx-cu13 writes itself with underscores.
    """
    import torch  # here: what an artifact is can be read without it

    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    # torch itself says more than its metadata: "2.14.1+cu130".
    return found | {"python": platform.python_version(), "torch": torch.__version__}


def gpu_facts(device: torch.device) -> dict[str, Any]:
    """{"gpu", "architecture", "driver"} of a CUDA device, as `Program` keeps them; of a CPU an empty dict."""
    if device.type != "cuda":
        return {}
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return {
        "gpu": torch.cuda.get_device_name(device),
        "architecture": f"{major}.{minor}",
        "driver": driver_version(Path("/proc/driver/nvidia/version")),
    }


def driver_version(path: Path) -> str:
    """Of the NVIDIA driver, such as "580.82.07", read from the file of its kernel module.

    Where a container hides that file, the CUDA version that the driver offers, such as "CUDA 13.0".
    """
    try:
        if match := re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)", path.read_text()):
            return match[1]
    except OSError:
        pass
    try:
        number = ctypes.c_int()
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
        return f"CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    except (OSError, AttributeError):  # another name of the library, as on Windows
        return "unknown"


@dataclass(frozen=True)
class Program:
    """What a backend has written: a file, and how to feed it.

    A backend's `load` may keep more files beside it, to start faster the next time, and must do without them: an
    artifact can be read-only. They have the program's name and a suffix of `KEPT`, belong to the artifact, and no
    digest is kept of them.

    Attributes:
        backend: that loads it, by its name in `p2p.deploy.backend.find`.
        file: name of the file.
        dtype: of the input and the output, a name in torch: "float32", "float16", "bfloat16", all (N, C, H, W) in
            [-1, 1], or "uint8", frames (N, H, W, C) as files hold them.
        max_batch: the largest batch it takes, or None for any.
        versions: of the libraries that made it.
        gpu: the GPU it was made on and runs on, or None where it runs on any device.
        min_batch: the smallest batch it takes; equal to `max_batch` for a program of one fixed batch.
        architecture, driver: the GPU's compute capability, such as "9.0", and its driver, for the record.
        considered: what `p2p.deploy.fastest` has tried, one row a backend.
        precision: "int8" or "fp8" where the inner layers compute in that, and of frames what all compute in, such as
            "fp16"; None: all compute in `dtype`.
        sizes: heights and widths that it takes; None: those of the manifest's shapes alone.
    """

    backend: str
    file: str
    dtype: str
    max_batch: int | None
    versions: dict[str, str]
    gpu: str | None = None
    min_batch: int = 1
    architecture: str | None = None
    driver: str | None = None
    considered: list[dict[str, str | float | None]] | None = None
    precision: str | None = None
    sizes: Sizes | None = None


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    Attributes:
        program: see `Program`.
        program_sha256: of its file.
        input_shape, output_shape: [C, H, W], in this order also where a program takes frames, and of a program of any
            size those that it was trained on.
        value_range: of both, and `mean` and `std` that bring pixels in [0, 1] there.
        norm_stats: "instance" or "running", see `p2p.models.inference_view`.
        direction: which side of an A|B pair is the input.
        input_range, target_range, labels, edges, background: how files are read, and what outputs are written in, see
            `p2p.data.reading.Reading`.
        preprocess, multiple, image_size: how images were brought to size, see `p2p.data.transforms.torchvision`.
        stride: what the sides of the network's images are multiples of; None in records of earlier versions.
        checkpoint, checkpoint_sha256, checkpoint_bytes, checkpoint_mtime_ns: the weights' origin, see
            `p2p.deploy.stale`.
        psnr_db: {"mean", "worst", "worst_image", "images"} of the program's outputs against fp32 eager on a CPU.
        built, build_seconds: when the program was compiled, UTC, and how long that took; earlier than `created` where
            it came from the build cache.
        created: UTC, ISO 8601.
    """

    program: Program
    program_sha256: str
    input_shape: list[int]
    output_shape: list[int]
    norm_stats: Literal["instance", "running"]
    direction: Direction
    preprocess: Preprocess
    multiple: int | None
    image_size: ImageSize
    checkpoint: str
    checkpoint_sha256: str
    psnr_db: dict[str, float | int | str]
    stride: int | None = None
    checkpoint_bytes: int | None = None
    checkpoint_mtime_ns: int | None = None
    built: str = ""
    build_seconds: float = 0.0
    input_range: list[float] | None = None
    target_range: list[float] | None = None
    labels: int | None = None
    edges: bool = False
    background: str | None = None
    value_range: list[float] = field(default_factory=lambda: [-1.0, 1.0])
    mean: float = 0.5
    std: float = 0.5
    created: str = field(default_factory=now)

    @property
    def readings(self) -> tuple[Reading, Reading]:
        """How files of inputs and of targets are read."""
        return from_facts((self.input_shape[0], self.output_shape[0]), vars(self))

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into the folder."""
        atomic.write(folder / FILE, json.dumps(asdict(self), indent=2) + "\n")

    def program_is_whole(self, folder: Path) -> bool:
        """Whether the file of its program is in `folder`, byte for byte."""
        path = folder / self.program.file
        return path.is_file() and sha256(path) == self.program_sha256

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `manifest.json` from the folder.

        Raises:
            ValueError: there is none, or it is damaged or of another version of p2p.
        """
        path = folder / FILE
        if not path.is_file():
            raise ValueError(f"there is no exported generator in {folder}: export first, with the same name=")
        try:
            record = json.loads(path.read_text())
            program = program_of(record.pop("program"))
            fields.check(record, fields.MANIFEST)
            manifest = cls(program=program, **record)
            if manifest.labels is not None and manifest.input_shape[0] != manifest.labels + manifest.edges:
                raise ValueError(f"labels={manifest.labels} do not make {manifest.input_shape[0]} channels")
            return manifest
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged or of another version of p2p ({error}): export again, or delete {folder}"
                " first if it does not replace it"
            ) from error


def check_size(size: str, manifest: Manifest, folder: Path) -> None:
    """Raise a ValueError if the program in `folder` cannot be used with infer.py's `size=`."""
    if size not in ("model", "input", "tile"):
        raise ValueError(f"size={size} is not known: use model, input or tile")
    _, height, width = manifest.input_shape
    if size == "input" and manifest.program.sizes is None:
        raise ValueError(
            f"size=input needs a program that takes any size, and that in {folder} takes {width}x{height} pixels alone:"
            " export again with size=dynamic, or use size=tile"
        )
    if size != "model" and manifest.output_shape[1:] != [height, width]:
        raise ValueError(
            f"size={size} needs a generator whose outputs have the size of its inputs, and that in {folder} makes"
            f" {manifest.output_shape[2]}x{manifest.output_shape[1]} of {width}x{height} pixels: use size=model"
        )


def check_fit(fit: str) -> None:
    """Raise a ValueError for another word of infer.py's `fit=`."""
    if fit not in ("stretch", "pad"):
        raise ValueError(f"fit={fit} is not known: use stretch or pad")


def check_tile_stats(tile_stats: str, backend: str) -> None:
    """Raise a ValueError for another word of `tile_stats=`, and where norms cannot be told what to go by."""
    if tile_stats not in ("tile", "image"):
        raise ValueError(f"tile_stats={tile_stats} is not known: use tile or image")
    if tile_stats == "image" and backend not in TELLS_NORMS:
        raise ValueError(
            f"tile_stats=image needs a program of which PyTorch runs each layer, and backend={backend} has its own:"
            " export again with backend=exported_program, or use tile_stats=tile"
        )


def program_of(record: object) -> Program:
    """The inverse of `dataclasses.asdict`.

    Raises:
        ValueError, TypeError: something else, and what.
    """
    if not isinstance(record, dict):
        raise ValueError("program is not an object")
    fields.check(record, fields.PROGRAM)
    sizes = record.get("sizes")
    program = Program(**record | {"sizes": sizes and Sizes(**sizes)})
    if program.max_batch is not None and program.max_batch < program.min_batch:
        raise ValueError(f"max_batch={program.max_batch} is less than min_batch={program.min_batch}")
    return program


def files_of(folder: Path) -> set[str]:
    """Names of the files that export.py and backends write there, of any version of p2p; none if it is no artifact."""
    try:
        record = json.loads((folder / FILE).read_text())
        digest, file = record["program_sha256"], record["program"]["file"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    if not (fields.digest(digest) and fields.bare_name(file)):
        return set()
    return {FILE, file, *(Path(file).with_suffix(suffix).name for suffix in KEPT)}
