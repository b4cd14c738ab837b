"""Training batches that the GPU decodes in every epoch: threads read the files, its JPEG engines do the rest."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from p2p.batch import Batch
from p2p.codecs.codec import BatchDecoder, CodedFiles
from p2p.data.dataset import PairDataset
from p2p.data.gpu_batches import Augmentation, cutter, one_ahead, to_device
from p2p.data.images import read_coded
from p2p.data.transforms import cvcuda
from p2p.data.transforms.torchvision import Torchvision
from p2p.data.transforms.transform import View

Images = dict[int, torch.Tensor]  # 0: input, 1: target; uint8 (H, W, 3)
READ_AHEAD = 64  # pairs: enough for a disk with many reads under way, and some megabytes


@dataclass(frozen=True)
class Coded:
    """A pair that the GPU decodes: its index, one file with both images or one of each, and what is seen of them."""

    index: int
    files: list[bytes]
    size: tuple[int, int]  # of each image: height and width
    view: View


class DecodedBatches:
    """Indices of pairs -> a batch on the GPU, as `GpuBatches` makes it, of pairs that are not kept.

    The views are those of the same seed on the CPU; pixels differ from there by rounding. What the GPU may not decode,
    the reading threads load as a loader process would.

    Args:
        dataset: of RGB images, with a transform that `p2p.data.decoder` lets through.
        decoder: of the files.
        device: the GPU.
        augmentation: see `GpuBatches`.
        threads: that read.
    """

    def __init__(
        self,
        dataset: PairDataset,
        *,
        decoder: BatchDecoder,
        device: torch.device,
        augmentation: Augmentation,
        threads: int,
    ):
        self._dataset, self._decoder, self._device, self._threads = dataset, decoder, device, threads
        assert isinstance(dataset.transform, Torchvision)
        self._transform, first = dataset.transform, dataset.pairs[0]
        self._halves = [source.half for source in (first.input, first.target) if source.half]  # all pairs are alike
        # JPEG engines wait for no stream: what they write to must not be memory that a stream is still at work with.
        self._decodes, self._stream = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._in_use: deque[tuple[torch.cuda.Event, list]] = deque()
        self._cut = cutter(augmentation, stream=self._stream, kept=False)

    def __call__(self, batches: Iterable[list[int]]) -> Iterator[Batch]:
        """Make the batches of an epoch, each while its predecessor is used."""
        return one_ahead(map(self._make, self._read_ahead(batches)), device=self._device)

    def _read_ahead(self, batches: Iterable[list[int]]) -> Iterator[list[Future[Coded | Batch]]]:
        pool = ThreadPoolExecutor(self._threads)
        reading: deque[list[Future[Coded | Batch]]] = deque()
        try:
            for indices in batches:
                reading.append([pool.submit(self._read, index) for index in indices])
                if len(reading) * len(indices) > READ_AHEAD:
                    yield reading.popleft()
            while reading:
                yield reading.popleft()
        finally:  # also of an epoch that is stopped
            pool.shutdown(cancel_futures=True)

    def _read(self, index: int) -> Coded | Batch:
        coded = read_coded(self._dataset.pairs[index])
        try:
            size = None if coded is None else self._transform.loaded_size(*coded[1])
            return self._dataset[index] if size is None else Coded(index, *coded, self._dataset.view(index, *size))
        except ValueError:
            return self._dataset[index]  # says what is wrong

    def _make(self, reading: list[Future[Coded | Batch]]) -> tuple[Batch, torch.cuda.Event]:
        read = [future.result() for future in reading]
        coded = {row: pair for row, pair in enumerate(read) if isinstance(pair, Coded)}
        while self._in_use and self._in_use[0][0].query():
            self._in_use.popleft()
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            images, frames = self._decoded(coded)
            samples = self._cut_out(coded, images)
            for row, pair in enumerate(read):
                if row not in samples:  # the CPU's, or found to be damaged
                    sample = self._dataset[pair.index] if isinstance(pair, Coded) else pair
                    sides = (sample.input_NCHW, sample.target_NCHW)
                    samples[row] = Batch(sample.names, *(to_device(side, self._device) for side in sides))
            batch = Batch.collate([samples[row] for row in range(len(read))])
            ready = torch.cuda.Event()
            ready.record()
        self._in_use.append((ready, [coded, frames]))
        return batch, ready

    def _decoded(self, coded: dict[int, Coded]) -> tuple[dict[int, Images], list[torch.Tensor]]:
        """By row, input and target (H, W, 3), resized, of pairs without damage; and the memory that was decoded to."""
        if not coded:
            return {}, []
        rows = [row for row, pair in coded.items() for _ in pair.files]  # of each file
        files = [np.frombuffer(data, np.uint8) for pair in coded.values() for data in pair.files]
        sizes = np.array([coded[row].size for row in rows]) * (1, len(self._halves) or 1)
        addresses, lengths = np.array([[file.ctypes.data, len(file)] for file in files], np.uintp).T
        groups, missed = self._decoder.decode(CodedFiles(addresses, lengths, sizes), stream=self._decodes)
        self._stream.wait_stream(self._decodes)
        images: dict[int, Images] = {row: {} for row in coded}
        for places, frames_NHWC in groups:
            middle = frames_NHWC.shape[2] // 2
            parts = {"left": slice(middle), "right": slice(middle, None), None: slice(None)}
            for side, half in enumerate(self._halves or [None]):
                sized_NHWC = self._resized(frames_NHWC[:, :, parts[half]])
                for place, image_HWC in zip(places, sized_NHWC, strict=True):
                    images[rows[place]][side if half else place % 2] = image_HWC
        for place in missed:
            images.pop(rows[place], None)
        return images, [frames_NHWC for _, frames_NHWC in groups]

    def _resized(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        frames_NHWC, size = frames_NHWC.contiguous(), tuple(frames_NHWC.shape[1:3])
        loaded_size = self._transform.loaded_size(*size)
        return frames_NHWC if loaded_size == size else cvcuda.resize(frames_NHWC, *loaded_size, stream=self._stream)

    def _cut_out(self, coded: dict[int, Coded], images: dict[int, Images]) -> dict[int, Batch]:
        """Of each row a sample of one image, as on the CPU."""
        alike = defaultdict(list)
        for row in images:
            alike[coded[row].view[2:4]].append(row)
        samples = {}
        for rows in alike.values():
            views = [coded[row].view for row in rows]
            sides = [self._cut([images[row][side] for row in rows], views).split(1) for side in (0, 1)]
            for row, *sample in zip(rows, *sides, strict=True):
                samples[row] = Batch([self._dataset.pairs[coded[row].index].name], *sample)
        return samples
