"""What `infer.py` has to do, so that another process can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from p2p.codecs.codec import Codec
from p2p.data.transforms.transform import Transform
from p2p.deploy.manifest import Manifest
from p2p.pipelines.files import Files, files_for


class Job(NamedTuple):
    """What is done to every image, on whatever device.

    Attributes:
        device: as torch names it.
        program, manifest: an export's folder, or a file of weights, and what it takes and gives.
        whole: whether an export's file was found to be whole.
        codec, transform, output, size, tile_stats, fit, restore_size, keeps_alpha: see `p2p.pipelines.stages.Stages`.
        batch_size, slots, workers: see `p2p.pipelines.overlap.run`.
        each_span: whether a timeline is wanted.
    """

    device: str
    program: Path
    manifest: Manifest
    whole: bool
    codec: Codec
    transform: Transform
    output: Path
    size: Literal["model", "input", "tile"]
    tile_stats: Literal["tile", "image"]
    fit: Literal["stretch", "pad"]
    restore_size: bool
    keeps_alpha: bool
    batch_size: int
    slots: int | None
    workers: int | None
    each_span: bool

    def path(self, name: str) -> Path:
        """Where the output of that name is written."""
        return self.output / f"{name}{self.codec.suffix}"

    def files(self) -> Files:
        """What loads and saves them."""
        return files_for(
            self.manifest,
            codec=self.codec,
            sizing=self.transform.sizing,
            output=self.output,
            size=self.size,
            fit=self.fit,
            restore_size=self.restore_size,
            keeps_alpha=self.keeps_alpha,
        )
