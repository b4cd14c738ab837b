"""The stages an image goes through, as plain callables. The pipelines arrange them in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from p2p.batch import Batch, to_frames
from p2p.codecs.pillow import Pillow
from p2p.data.images import read_input
from p2p.data.pairs import Pair
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.engine import Engine
from p2p.profiling.clock import Clock


class Stages:
    """load (decode, preprocess), translate (generate, postprocess) and save (encode, write), timed by a clock.

    Any thread may call `load` and `save`. An input that cannot be read ends up in `failures` and its batch goes
    on without it; whatever else goes wrong is raised.

    Args:
        engine, transform, codec: do the work.
        output: folder that the written files' names are relative to.
        clock: measures each stage.
        on_image: called after each image that is done, or failed.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        transform: Torchvision,
        codec: Pillow,
        output: Path,
        clock: Clock,
    ):
        self.engine = engine
        self.transform = transform
        self.codec = codec
        self.output = output
        self.clock = clock
        self.failures: dict[str, str] = {}
        self.on_image: Callable[[], object] = lambda: None

    def path(self, name: str) -> Path:
        """Where the output of that name is written."""
        return self.output / f"{name}{self.codec.suffix}"

    def warmup(self, batch_size: int) -> None:
        """Run the engine once on zeros, so that no image pays for its first-time work."""
        with self.clock("warmup"):
            to_frames(self.engine(torch.zeros(batch_size, *self.engine.manifest.input_shape))).cpu()

    def load(self, pair: Pair) -> Batch | None:
        """Read one input; None, and a reason in `failures`, if that cannot be done."""
        try:
            with self.clock("decode"):
                frame_HWC = read_input(pair, self.codec.decode, channels=self.engine.channels)
            with self.clock("preprocess"):
                return Batch([pair.name], self._preprocess(pair, frame_HWC)[None])
        except ValueError as error:
            self.failures[pair.name] = str(error)
            self.on_image()
            return None

    def collate(self, samples: list[Batch | None]) -> Batch | None:
        """Join what could be loaded; None if nothing could."""
        loaded = [sample for sample in samples if sample is not None]
        return Batch.collate(loaded) if loaded else None

    def translate(self, batch: Batch) -> np.ndarray:
        """A batch of inputs -> uint8 (N, H, W, C) on the host. Waits for the GPU."""
        with self.clock("generate", len(batch)):
            output_NCHW = self.engine(batch.input_NCHW)
            if output_NCHW.is_cuda:
                torch.cuda.current_stream().synchronize()  # or the time would count as postprocess
        with self.clock("postprocess", len(batch)):
            return to_frames(output_NCHW).cpu().numpy()

    def save(self, name: str, frame_HWC: np.ndarray) -> None:
        """Encode and write one output. A file appears whole or not at all."""
        with self.clock("encode"):
            data = self.codec.encode(frame_HWC)
        with self.clock("write"):
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            try:
                partial.write_bytes(data)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        self.on_image()

    def _preprocess(self, pair: Pair, frame_HWC: np.ndarray) -> torch.Tensor:
        try:
            image_CHW = self.transform.eval(frame_HWC)
        except ValueError as error:
            raise ValueError(f"cannot use {pair.input.path}: {error}") from error
        if list(image_CHW.shape) != self.engine.manifest.input_shape:
            found, expected = (
                "x".join(map(str, s[:0:-1])) for s in (image_CHW.shape, self.engine.manifest.input_shape)
            )
            raise ValueError(
                f"cannot use {pair.input.path}: it is {found} after transform.preprocess, and the exported program"
                f" takes {expected}: export one for such images, or train with transform.preprocess=resize_and_crop"
            )
        return image_CHW


def progress_bar(images: int) -> tqdm:
    """A bar that counts images; none where the output is no terminal."""
    return tqdm(total=images, unit="image", desc="translate", disable=None, leave=False)
