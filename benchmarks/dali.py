"""The other peer: NVIDIA DALI reads, decodes and normalizes on the GPU; all else is as in `benchmarks.peer`.

It takes the packages nvidia-dali-cuda130 and what that one asks for. `benchmarks.pipeline` measures it: --rows
dali:jpg:32. Chroma is upsampled in DALI's own way, its fastest, so the pictures are not quite those of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch

from benchmarks.peer import warm_up
from benchmarks.savers import Savers, drive
from p2p.data.pairs import Pair

WARM = 8  # batches before the clock starts, in which DALI allocates
PREFETCHED = 3  # batches that DALI has ready


def installed() -> bool:
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # of nvidia
        return False


def candidates(cores: int) -> list[dict[str, float]]:
    """Threads of DALI, the share of the images that its JPEG engine gets, and processes that save."""
    few, more = min(2, cores), max(1, cores // 4)
    return [
        {"threads": few, "hw_decoder_load": 1.0, "savers": cores},
        {"threads": few, "hw_decoder_load": 0.9, "savers": cores},
        {"threads": more, "hw_decoder_load": 0.65, "savers": max(1, cores - more)},
    ]


def run(
    generate: Callable[[torch.Tensor], torch.Tensor],
    pairs: list[Pair],
    *,
    batch: int,
    shape: tuple[int, int, int],
    output: Path,
    format: str,
    threads: int,
    hw_decoder_load: float,
    savers: int,
) -> dict[str, float]:
    """Translate the pairs' left halves, which have the network's size -> see `drive`. Begins when all processes run.

    Some first images come twice, unmeasured the first time. PREFETCHED batches may be ready when the clock starts.

    Args:
        generate: see `benchmarks.peer.make_generate`.
        shape: (H, W, 3) of what goes in and comes out.
        threads, hw_decoder_load, savers: see `candidates`.
    """
    with Savers(savers, batch=batch, shape=shape, output=output, format=format) as pool:
        example_NHWC = torch.zeros(batch, *shape, dtype=torch.float16, device="cuda")
        warm_up(generate, example_NHWC, images=len(pairs))
        chosen = [index % len(pairs) for index in range(WARM * batch)] + [*range(len(pairs))]
        batches = _batches(pairs, chosen, batch=batch, shape=shape, threads=threads, hw_decoder_load=hw_decoder_load)
        for frames_NHWC, _ in islice(batches, WARM):
            generate(frames_NHWC)
        return drive(batches, generate, pool)


def _batches(
    pairs: list[Pair],
    chosen: list[int],
    *,
    batch: int,
    shape: tuple[int, int, int],
    threads: int,
    hw_decoder_load: float,
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """float16 RGB in [-1, 1] on the GPU, (N, H, W, 3), and their names."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    @pipeline_def
    def loading():
        paths = [str(pairs[index].input.path) for index in chosen]
        files, numbers = fn.readers.file(
            files=paths, labels=chosen, name="files", pad_last_batch=True, prefetch_queue_depth=PREFETCHED
        )
        images = fn.decoders.image(
            files,
            device="mixed",
            output_type=types.RGB,
            hw_decoder_load=hw_decoder_load,
            preallocate_height_hint=shape[0],
            preallocate_width_hint=2 * shape[1],
        )
        frames = fn.crop_mirror_normalize(
            images,
            crop=shape[:2],
            crop_pos_x=0.0,
            crop_pos_y=0.0,
            mean=[127.5] * 3,
            std=[127.5] * 3,
            dtype=types.FLOAT16,
            output_layout="HWC",  # which is channels_last to torch
        )
        return frames, numbers

    pipeline = loading(batch_size=batch, num_threads=threads, device_id=0, prefetch_queue_depth=PREFETCHED)
    epoch = DALIGenericIterator(
        pipeline, ["frames", "numbers"], reader_name="files", last_batch_policy=LastBatchPolicy.PARTIAL
    )
    for (found,) in epoch:
        yield found["frames"], [pairs[number].name for number in found["numbers"].flatten().tolist()]
