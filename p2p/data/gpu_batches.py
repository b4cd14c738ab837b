"""Training batches from pairs that are kept on the GPU: crop, flip and normalize there, one batch ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Literal

import torch

from p2p.batch import Batch
from p2p.data.cache import PairCache
from p2p.data.transforms.cvcuda import Ordered
from p2p.data.transforms.transform import View
from p2p.levels import normalize

Augmentation = Literal["auto", "cvcuda", "torch"]


class GpuBatches:
    """Indices of pairs -> a batch on the GPU; the values are those of `PairDataset` on the CPU.

    The work happens on a stream of its own, beside the step that is under way, and nothing waits for it but the
    stream that uses the batch.

    Args:
        cache: the pairs, on the GPU.
        names: of each pair.
        view: index -> what is to be seen of this pair in this epoch.
        device: the GPU.
        augmentation: "cvcuda" is one kernel for the inputs of a batch and one for its targets; "torch" a few;
            "auto" is CV-CUDA if it is installed.

    Raises:
        ValueError: CV-CUDA is asked for and not installed.
    """

    def __init__(
        self,
        cache: PairCache,
        *,
        names: list[str],
        view: Callable[[int], View],
        device: torch.device,
        augmentation: Augmentation = "auto",
    ):
        self._cache, self._names, self._view, self._device = cache, names, view, device
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # the cache has been written
        self._cut = cutter(augmentation, stream=self._stream, kept=True)

    @property
    def augmented_by(self) -> str:
        """For a message."""
        return self._cut.name

    def __call__(self, batches: Iterable[list[int]]) -> Iterator[Batch]:
        """Make the batches of an epoch, each while its predecessor is used."""
        return one_ahead(map(self._make, batches), device=self._device)

    def _make(self, indices: list[int]) -> tuple[Batch, torch.cuda.Event]:
        views = [self._view(index) for index in indices]
        sizes = {(view.height, view.width) for view in views}
        if len(sizes) > 1:
            raise ValueError(
                "data.cache=gpu makes no batch of images of several sizes: use batch_size=1 or"
                " transform.preprocess=resize_and_crop"
            )
        pairs = [self._cache.pair(index) for index in indices]
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            inputs_NCHW, targets_NCHW = (self._cut(list(images), views) for images in zip(*pairs, strict=True))
            ready = torch.cuda.Event()
            ready.record()
        return Batch([self._names[index] for index in indices], inputs_NCHW, targets_NCHW), ready


def one_ahead(made: Iterable[tuple[Batch, torch.cuda.Event]], *, device: torch.device) -> Iterator[Batch]:
    """Hand each batch over to the current stream when its successor has been queued.

    Args:
        made: batches on the GPU, each with the event after which it is ready; queued on another stream when asked for.
        device: the GPU.
    """
    ahead = None
    for following in made:
        if ahead is not None:
            yield hand_over(*ahead, device=device)
        ahead = following
    if ahead is not None:
        yield hand_over(*ahead, device=device)


def hand_over(batch: Batch, ready: torch.cuda.Event, *, device: torch.device) -> Batch:
    """Let the current stream, and no host, wait for a batch."""
    now = torch.cuda.current_stream(device)
    now.wait_event(ready)
    for images_NCHW in (batch.input_NCHW, batch.target_NCHW):
        images_NCHW.record_stream(now)  # its memory is not used again before that stream is through with it
    return batch


def cutter(augmentation: Augmentation, *, stream: torch.cuda.Stream, kept: bool) -> WithTorch | WithCvCuda:
    """What crops, mirrors and normalizes on that stream; `kept`: see `WithCvCuda`.

    Raises:
        ValueError: CV-CUDA is asked for and not installed.
    """
    if augmentation == "torch":
        return WithTorch()
    try:
        return WithCvCuda(stream, kept=kept)
    except ImportError as error:
        if augmentation == "cvcuda":
            raise ValueError(
                f"CV-CUDA cannot be used ({error}): pip install cvcuda-cu13, or data.augmentation=torch"
            ) from None
        return WithTorch()


class WithTorch:
    """uint8 (H, W, C) images and their views -> float32 (N, C, height, width) in [-1, 1], bit by bit as on the CPU."""

    name = "torch"

    def __call__(self, images_HWC: list[torch.Tensor], views: list[View]) -> torch.Tensor:
        """On the current stream."""
        windows_NHWC = torch.stack(
            [
                image_HWC[view.top : view.top + view.height, view.left : view.left + view.width]
                for image_HWC, view in zip(images_HWC, views, strict=True)
            ]
        )
        mirrored = to_device(torch.tensor([view.mirrored for view in views]), windows_NHWC.device)
        windows_NHWC = torch.where(mirrored[:, None, None, None], windows_NHWC.flip(2), windows_NHWC)
        return normalize(windows_NHWC.permute(0, 3, 1, 2).float())


class WithCvCuda:
    """The same by one kernel of CV-CUDA, which rounds differently in the last bit.

    Args:
        stream: where it happens.
        kept: each image stays where it is and comes again, so that what CV-CUDA knows of it is kept, too.

    Raises:
        ImportError: CV-CUDA is not installed, or its libraries are not.
    """

    name = "CV-CUDA"

    def __init__(self, stream: torch.cuda.Stream, *, kept: bool):
        import cvcuda

        self._cvcuda: ModuleType = cvcuda
        self._stream = stream
        self._on = cvcuda.as_stream(stream)
        self._kept = kept
        self._images: dict[int, object] = {}  # CV-CUDA's view of an image, by its address
        self._constants: list | None = None

    def __call__(self, images_HWC: list[torch.Tensor], views: list[View]) -> torch.Tensor:
        """On its stream, which is the current one."""
        cvcuda, first = self._cvcuda, views[0]
        count, channels, device = len(views), images_HWC[0].shape[2], images_HWC[0].device
        if not self._kept:
            self._images.clear()
        batch = cvcuda.ImageBatchVarShape(count)
        batch.pushback([self._image(image_HWC) for image_HWC in images_HWC])
        # x, y, width, height; and what to mirror: 1 is left to right, 0 and -1 are others, and all else is nothing.
        numbers = [[view.left, view.top, view.width, view.height] for view in views]
        rectangles = to_device(torch.tensor(numbers, dtype=torch.int32), device)
        flips = to_device(torch.tensor([[1 if view.mirrored else 2] for view in views], dtype=torch.int32), device)
        result_NHWC = torch.empty(count, first.height, first.width, channels, device=device)
        if self._constants is None:  # the result is (value - base) * scale + globalshift
            base = torch.zeros(1, 1, 1, 1, device=device)
            self._constants = [self._tensor(tensor, "NHWC") for tensor in (base, torch.full_like(base, 1 / 127.5))]
        cvcuda.crop_flip_normalize_reformat_into(
            self._tensor(result_NHWC, "NHWC"),
            batch,
            rect=self._tensor(rectangles.view(count, 1, 1, 4), "NHWC"),
            flip_code=self._tensor(flips, "NC"),
            base=self._constants[0],
            scale=self._constants[1],
            globalshift=-1.0,
            stream=self._on,
        )
        return result_NHWC.permute(0, 3, 1, 2)

    def _image(self, image_HWC: torch.Tensor) -> object:
        key = image_HWC.data_ptr()
        if key not in self._images:
            format = self._cvcuda.Format.RGB8 if image_HWC.shape[2] == 3 else self._cvcuda.Format.U8
            self._images[key] = self._cvcuda.as_image(Ordered(image_HWC, self._stream), format)
        return self._images[key]

    def _tensor(self, tensor: torch.Tensor, layout: str) -> object:
        return self._cvcuda.as_tensor(Ordered(tensor, self._stream), layout)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Without waiting: from pinned memory."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
