"""A generator that translates images of any kind and size: what `p2p.load` returns."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from PIL import Image

from p2p.api.images import Expected, ImageLike, Output, Prepared, prepare
from p2p.batch import from_frames, to_frames
from p2p.data.reading import Reading
from p2p.data.transforms.letterbox import Letterbox
from p2p.data.transforms.sizing import Sizing
from p2p.deploy.manifest import check_fit, check_tile_stats
from p2p.deploy.sizes import Sizes
from p2p.image_size import ImageSize, shown
from p2p.pipelines.any_size import Tiles
from p2p.pipelines.parts import Parts

T = TypeVar("T", Image.Image, np.ndarray, torch.Tensor)
Size = Literal["model", "input", "tile"]
Fit = Literal["stretch", "pad"]
TileStats = Literal["tile", "image"]

USUAL = 8  # images of a list that go through the network together


@dataclass(kw_only=True, eq=False, repr=False)
class Translator:
    """Call it with an image, a batch or a list of them. Threads may share it: they take turns at the network.

    Attributes:
        source: the folder or the file that it was loaded from.
        backend: what runs the network, as export.py's backend= calls it; "pytorch" for weights.
        precision: what it computes in, such as "float32", "float16" or "int8".
        device: where it runs.
        network: float32 (N, C, H, W) in [-1, 1], on any device -> floats of (N, C', H, W) on `device`.
        sizing: what images are brought to size by.
        input_shape: (C, H, W) that the network takes, H and W None where any will do that `sizing` gives.
        output_channels: that it gives.
        tile: height and width of a tile of size="tile".
        sizes: heights and widths that it takes with size="input"; None: it takes one size alone.
        stride: what the sides of its images are multiples of.
        min_batch, max_batch: images that it takes at a time; None: any number.
        norm_stats: what BatchNorm goes by, "instance" or "running".
        direction: which side of an A|B pair is the input, "AtoB" or "BtoA".
        readings: what the numbers of inputs and of outputs mean; None: pictures.
    """

    source: Path
    backend: str
    precision: str
    device: torch.device
    network: Callable[[torch.Tensor], torch.Tensor]
    sizing: Sizing
    input_shape: tuple[int, int | None, int | None]
    output_channels: int
    tile: tuple[int, int]
    stride: int
    sizes: Sizes | None = None
    min_batch: int = 1
    max_batch: int | None = None
    norm_stats: str
    direction: str
    readings: tuple[Reading, Reading] | None = None
    _expected: Expected = field(init=False)
    _at_own_size: Expected = field(init=False)
    _parts: Parts = field(init=False)
    _turn: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        readings = self.readings or (Reading(self.input_shape[0]), Reading(self.output_channels))
        self._expected = Expected(self.sizing, self.input_shape, self.output_channels, readings)
        self._at_own_size = self._expected._replace(sizing=None)
        self._parts = Parts(least=lambda: self.min_batch)

    @property
    def image_size(self) -> ImageSize:
        """Side in pixels of what the network was trained on, or [height, width]."""
        return self.sizing.size

    def __repr__(self) -> str:
        return (
            f"<p2p model of {self.source}: {self.input_shape[0]} to {self.output_channels} channels,"
            f" image_size={shown(self.image_size)}, {self.backend}, {self.precision}, device={self.device}>"
        )

    @overload
    def __call__(
        self,
        image: T,
        *,
        size: Size = ...,
        fit: Fit = ...,
        tile_stats: TileStats = ...,
        restore_size: bool = ...,
        batch_size: int | None = ...,
    ) -> T: ...
    @overload
    def __call__(
        self,
        image: str | os.PathLike[str] | bytes,
        *,
        size: Size = ...,
        fit: Fit = ...,
        tile_stats: TileStats = ...,
        restore_size: bool = ...,
        batch_size: int | None = ...,
    ) -> Image.Image: ...
    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        size: Size = ...,
        fit: Fit = ...,
        tile_stats: TileStats = ...,
        restore_size: bool = ...,
        batch_size: int | None = ...,
    ) -> list[Any]: ...
    def __call__(self, image, *, size="model", fit="stretch", tile_stats="tile", restore_size=False, batch_size=None):
        """Translate, and give back the kind that came: a list for a list, a PIL image for a path.

        Args:
            image: one of these, of any size, or a list of them, whose kinds and sizes may differ.
                - The path of a file, the bytes of one, or a PIL image: of any mode, turned upright as its EXIF says.
                  Comes back as a PIL image of mode RGB or L.
                - A NumPy array (H, W, C), of a grey image also (H, W), or a batch (N, H, W, C): uint8 in [0, 255],
                  uint16 in [0, 65535], or floats in [0, 1]. Comes back in its dtype and range.
                - A torch tensor (C, H, W) or a batch (N, C, H, W): uint8 in [0, 255], or floats in [-1, 1]. Comes back
                  in its dtype and range, on its device.
                A model of RGB images also takes grey ones, as three equal channels.
            size: "model": brought to the size that the network was trained on, which the output then has; "input": at
                the image's own size, whole, as the network would see it in a larger one; "tile": at its own size, in
                overlapping tiles of the network's size.
            fit: of "model": "stretch", or "pad": resized with its proportions kept, its border repeated.
            tile_stats: of "tile": what instance norms go by, "tile", or "image", the whole of it, in twice the time.
            restore_size: of "model": resize the output to the input's own size, by Pillow's bicubic; what was added
                by "pad" is cut off before.
            batch_size: how many images go through the network together; None: of a list 8, or what an export was
                built for, and a batch as it is.

        Raises:
            ValueError: an argument is not known, or an image cannot be translated, and which: one sentence. Nothing
                comes back then of the images before it.
        """
        self.check(size=size, fit=fit, tile_stats=tile_stats, restore_size=restore_size)
        most = self.max_batch or sys.maxsize
        if batch_size is not None and not (hasattr(batch_size, "__index__") and 1 <= batch_size <= most):
            range = "1 or more" if self.max_batch is None else f"1 to {most}, or export again for more"
            raise ValueError(f"batch_size={batch_size} is out of range: use {range}")
        batch_size = None if batch_size is None else int(batch_size)
        if isinstance(image, (list, tuple)):
            usual = min(max(USUAL, self.min_batch), most)
            prepared: Iterator[Prepared] = (
                self.prepare(each, size=size, fit=fit, name=f"images[{number}]") for number, each in enumerate(image)
            )
            batch_size = batch_size or usual
        else:
            prepared = iter([self.prepare(image, size=size, fit=fit)])
            batch_size = batch_size or most
        outputs = self.translate(
            prepared, size=size, tile_stats=tile_stats, restore_size=restore_size, batch_size=batch_size
        )
        return list(outputs) if isinstance(image, (list, tuple)) else next(outputs)

    def check(
        self,
        *,
        size: Size = "model",
        fit: Fit = "stretch",
        tile_stats: TileStats = "tile",
        restore_size: bool = False,
    ) -> None:
        """Raise a ValueError if the arguments of a call are not known, or not for this model."""
        if size not in ("model", "input", "tile"):
            raise ValueError(f"size={size} is not known: use model, input or tile")
        if restore_size and size != "model":
            raise ValueError(f"restore_size=True applies only to size=model, and size={size} keeps sizes: leave it out")
        check_fit(fit)
        check_tile_stats(tile_stats, self.backend)
        if fit == "pad" and size != "model":
            raise ValueError(f"fit=pad applies only to size=model, and size={size} keeps sizes: leave it out")
        if tile_stats == "image" and size != "tile":
            raise ValueError(f"tile_stats=image applies only to size=tile, not to size={size}: leave it out")
        if size == "input" and self.sizes is None:
            raise ValueError(
                f"size=input needs a program that takes any size, and that in {self.source} takes one alone: export"
                " again with size=dynamic, load the run itself, or use size=tile"
            )

    def prepare(
        self, image: ImageLike, *, size: Size = "model", fit: Fit = "stretch", name: str = "the image"
    ) -> Prepared:
        """The first half of a call, which needs no network: an image as that takes it, for `translate`.

        Args:
            image: see `__call__`, but no list.
            size, fit: see `__call__`.
            name: what an error calls an image that is no file.

        Raises:
            ValueError: it cannot be translated: one sentence.
        """
        try:
            if fit == "pad":
                box = Letterbox(*self.tile)
                return replace(prepare(image, self._expected._replace(sizing=box)), box=box)
            prepared = prepare(image, self._expected if size == "model" else self._at_own_size)
            if size == "input":
                assert self.sizes is not None
                return replace(prepared, input_NCHW=padded(prepared.input_NCHW, self.sizes.around(prepared.size)))
            return prepared
        except ValueError as error:
            if isinstance(image, (str, os.PathLike)):  # which the sentence names
                raise
            raise ValueError(f"cannot translate {name}: {error}") from error

    def translate(
        self,
        prepared: Iterable[Prepared],
        *,
        size: Size = "model",
        tile_stats: TileStats = "tile",
        restore_size: bool = False,
        batch_size: int,
    ) -> Iterator[Output]:
        """The second half of a call: what `prepare` gave with the same `size` -> an output of each, in their order.

        Args:
            size, tile_stats, restore_size: see `__call__`.
            batch_size: how many images of one size go through the network together.
        """
        if size == "tile":
            for each in prepared:
                tiles = min(batch_size, max(USUAL, self.min_batch))
                yield each.output(self._tiled(each, tiles, tile_stats), restore_size=False)
            return
        for group in together(prepared, batch_size):
            input_NCHW = torch.cat([each.input_NCHW.to(self.device) for each in group])
            output_NCHW = self._generate(input_NCHW, batch_size)
            if size == "input":
                self._check_same_size(input_NCHW, output_NCHW, size)
            outputs = output_NCHW.split([len(each) for each in group])
            for each, output_NCHW in zip(group, outputs, strict=True):
                height, width = each.size if size == "input" else output_NCHW.shape[2:]
                yield each.output(output_NCHW[:, :, :height, :width], restore_size=restore_size)

    def _tiled(self, image: Prepared, batch_size: int, tile_stats: TileStats) -> torch.Tensor:
        """float32 (N, C', H, W) of images of high depth, of others uint8 (N, H, W, C')."""

        def generate(tiles_NHWC: torch.Tensor) -> torch.Tensor:
            input_NCHW = from_frames(tiles_NHWC).to(self.device)
            output_NCHW = self._generate(input_NCHW, batch_size, once=tile_stats == "image")
            self._check_same_size(input_NCHW, output_NCHW, "tile")
            return output_NCHW.permute(0, 2, 3, 1) if image.high_depth else to_frames(output_NCHW)

        frames_NHWC = image.input_NCHW.permute(0, 2, 3, 1).cpu().numpy()
        dtype = np.float32 if image.high_depth else np.uint8
        outputs_NHWC = np.empty((*frames_NHWC.shape[:3], self.output_channels), dtype)
        tiles = Tiles(self.tile, self.stride, tile_stats)
        tiles.translate([*frames_NHWC], [*outputs_NHWC], generate, batch_size=batch_size)
        output_NHWC = torch.from_numpy(outputs_NHWC)
        return output_NHWC.permute(0, 3, 1, 2) if image.high_depth else output_NHWC

    def _check_same_size(self, input_NCHW: torch.Tensor, output_NCHW: torch.Tensor, size: Size) -> None:
        """As `p2p.deploy.manifest.check_size` does by what an export says: of weights it is seen here."""
        made, given = ("x".join(map(str, each.shape[:1:-1])) for each in (output_NCHW, input_NCHW))
        if made != given:
            raise ValueError(
                f"size={size} needs a generator whose outputs have the size of its inputs, and that of {self.source}"
                f" makes {made} of {given} pixels: use size=model"
            )

    def _generate(self, input_NCHW: torch.Tensor, batch_size: int, *, once: bool = False) -> torch.Tensor:
        """float32 (N, C, H, W) in [-1, 1] -> the same on the device, `batch_size` images at a time.

        once: of a batch that the GPU's memory does not hold nothing is tried again, and counted twice.
        """

        def run(part: slice) -> torch.Tensor:  # a copy, since a program may write its next output to the same memory
            return self.network(images_NCHW[part]).to(torch.float32, copy=True)

        outputs = []
        with self._turn, torch.no_grad(), on(self.device), same_bits(self.device):
            for images_NCHW in input_NCHW.split(batch_size):
                outputs += [run(slice(None))] if once else self._parts(len(images_NCHW), run)
        return torch.cat(outputs)


def padded(images_NCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """With the last column and row repeated, as by `p2p.data.transforms.tiling.pad`."""
    for dim, side in zip((2, 3), size, strict=True):
        found = images_NCHW.shape[dim]
        if found != side:
            places = torch.arange(side, device=images_NCHW.device).clamp_(max=found - 1)
            images_NCHW = images_NCHW.index_select(dim, places)
    return images_NCHW


def together(prepared: Iterable[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    """Neighbours that make a batch: of one size, and of `batch_size` images at most unless a single one has more."""
    group: list[Prepared] = []
    for each in prepared:
        if group and (each.image_shape != group[0].image_shape or sum(map(len, group)) + len(each) > batch_size):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def on(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU torch's current one meanwhile."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Whatever the caller has set, no autocast, nor kernels of cuDNN that add in the order in which threads arrive."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.deterministic = before
