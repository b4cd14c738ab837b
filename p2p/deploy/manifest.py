"""The record beside an exported program: all that is needed to run it, and where it came from."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

FILE = "manifest.json"


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, torch and those of the named distributions that are installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    installed = {distribution.name for distribution in metadata.distributions()}
    return found | {package: metadata.version(package) for package in packages if package in installed}


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Program:
    """What a backend has written: a file, and how to feed it.

    Attributes:
        backend: module of `p2p.deploy` that loads it.
        file: name of the file.
        dtype: of the input and the output, a name in torch: "float32", "float16", "bfloat16".
        max_batch: the largest batch it takes, or None for any.
        versions: of the libraries that made it.
        gpu: the GPU it was made on and runs on, or None where it runs on any device.
    """

    backend: str
    file: str
    dtype: str
    max_batch: int | None
    versions: dict[str, str]
    gpu: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    Attributes:
        program: see `Program`.
        program_sha256: of its file.
        input_shape, output_shape: [C, H, W]; images go in and come out as NCHW.
        value_range: of both, and `mean` and `std` that bring pixels in [0, 1] there.
        norm_stats: "instance" or "running", see `p2p.deploy.rewrite`.
        direction: which side of an A|B pair is the input.
        preprocess, multiple: how images were brought to size, see `p2p.data.transforms.torchvision`.
        checkpoint, checkpoint_sha256: the weights' origin.
        psnr_db: {"mean", "worst", "images"} of the program's outputs against fp32 eager on a CPU.
        created: UTC, ISO 8601.
    """

    program: Program
    program_sha256: str
    input_shape: list[int]
    output_shape: list[int]
    norm_stats: str
    direction: str
    preprocess: str
    multiple: int | None
    checkpoint: str
    checkpoint_sha256: str
    psnr_db: dict[str, float]
    value_range: list[float] = field(default_factory=lambda: [-1.0, 1.0])
    mean: float = 0.5
    std: float = 0.5
    created: str = field(default_factory=now)

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into the folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `manifest.json` from the folder.

        Raises:
            ValueError: there is none, or it is damaged or of another version of p2p.
        """
        path = folder / FILE
        if not path.is_file():
            raise ValueError(f"there is no exported generator in {folder}: run export.py first, with the same name=")
        try:
            record = json.loads(path.read_text())
            program = Program(**record.pop("program"))
            return cls(program=program, **record)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged or of another version of p2p ({error}): run export.py again"
            ) from error
