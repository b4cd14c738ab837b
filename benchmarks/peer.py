"""The peer: the same job as a competent engineer writes it in an hour, and then tunes it.

A DataLoader's processes read and decode with OpenCV. The network in fp16 and channels_last, and the conversions around
it, are compiled by torch.compile into CUDA graphs. Copies go through page-locked memory and wait for nothing. Other
processes encode with OpenCV and write. Each stage has a queue before it, so none keeps step with another.
`benchmarks.pipeline` measures it: --rows peer:jpg:32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import bgr
from benchmarks.savers import Savers, drive
from p2p.data.pairs import Pair

PREFETCHED = 2  # batches, by each process of the DataLoader


class LeftHalves(Dataset):
    """The left halves of A|B images, uint8 (H, W, 3) BGR, and their numbers."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        frame_HWC = bgr.decode(self.paths[number].read_bytes())
        return frame_HWC[:, : frame_HWC.shape[1] // 2], number


def make_generate(network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network and its conversions: uint8 BGR, or RGB in [-1, 1], -> uint8 BGR, all (N, H, W, 3).

    On a GPU in fp16, compiled for each size of batch at its first call; on a CPU as it is.
    """
    on_gpu = torch.cuda.is_available()
    network = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)
    if on_gpu:
        network = network.half().cuda()
    dtype = torch.float16 if on_gpu else torch.float32

    @torch.no_grad()
    def generate(frames_NHWC: torch.Tensor) -> torch.Tensor:
        images_NCHW = frames_NHWC.permute(0, 3, 1, 2)
        if frames_NHWC.dtype == torch.uint8:
            images_NCHW = (images_NCHW.flip(1).float() / 127.5 - 1).to(dtype)
        levels_NCHW = (network(images_NCHW).float() + 1) * 127.5
        return levels_NCHW.round().clamp(0, 255).to(torch.uint8).flip(1).permute(0, 2, 3, 1).contiguous()

    return torch.compile(generate, mode="reduce-overhead", dynamic=False) if on_gpu else generate


def warm_up(generate: Callable[[torch.Tensor], torch.Tensor], example_NHWC: torch.Tensor, *, images: int) -> None:
    """Compile and record for a batch, and for the rest of so many images that fills none."""
    batch = len(example_NHWC)
    for size in filter(None, (batch, images % batch)):
        for _ in range(3):  # compiled, recorded, replayed
            generate(example_NHWC[:size].clone())


def candidates(cores: int) -> list[dict[str, int]]:
    """Ways to share the cores between loading and saving, and to leave that to the system."""
    shares = {max(1, cores * eighths // 8) for eighths in (4, 5, 6)}
    ways = {(share, max(1, cores - share)) for share in shares} | {(cores, cores)}
    return [{"loaders": loaders, "savers": savers} for loaders, savers in sorted(ways)]


def run(
    generate: Callable[[torch.Tensor], torch.Tensor],
    pairs: list[Pair],
    *,
    batch: int,
    shape: tuple[int, int, int],
    output: Path,
    format: str,
    loaders: int,
    savers: int,
) -> dict[str, float]:
    """Translate the pairs' left halves, which have the network's size -> see `drive`. Begins when all processes run.

    Args:
        shape: (H, W, 3) of what goes in and comes out.
        loaders, savers: processes that load, and that save.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    numbers = [[0]] * loaders  # of a first epoch, in which the processes start
    loader = DataLoader(
        LeftHalves([pair.input.path for pair in pairs]),
        batch_sampler=numbers,
        num_workers=loaders,
        prefetch_factor=PREFETCHED,
        pin_memory=device.type == "cuda",
        persistent_workers=True,
        multiprocessing_context="fork",
        worker_init_fn=lambda _: bgr.use_one_thread(),
    )
    for _ in loader:
        pass
    numbers[:] = (list(range(start, min(start + batch, len(pairs)))) for start in range(0, len(pairs), batch))

    def batches() -> Iterator[tuple[torch.Tensor, list[str]]]:
        for frames_NHWC, chosen in loader:
            yield frames_NHWC.to(device, non_blocking=True), [pairs[number].name for number in chosen.tolist()]

    with Savers(savers, batch=batch, shape=shape, output=output, format=format) as pool:
        warm_up(generate, torch.zeros(batch, *shape, dtype=torch.uint8, device=device), images=len(pairs))
        return drive(batches(), generate, pool)
