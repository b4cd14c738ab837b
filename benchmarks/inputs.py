"""Make many different A|B pairs from the 80 that p2p ships, and train a generator on some of them."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.record import ROOT

SAMPLES = sorted((ROOT / "data/samples").glob("*/*.jpg"))
COLOURS = list(permutations(range(3)))
SIZE = 256  # of a half, in pixels
VARIANTS = 2 * 4 * len(COLOURS)  # mirrored, turned, in other colours


def variant(number: int) -> np.ndarray:
    """A pair, uint8 (SIZE, 2 * SIZE, 3): all differ up to 80 * 48 = 3,840, and then come again."""
    kind, sample = divmod(number, len(SAMPLES))
    pair_HWC = np.asarray(Image.open(SAMPLES[sample]).convert("RGB"))
    halves = [pair_HWC[:, :SIZE], pair_HWC[:, SIZE:]]
    if kind % 2:
        halves = [half[:, ::-1] for half in halves]
    halves = [np.rot90(half, kind // 2 % 4) for half in halves]
    return np.hstack(halves)[..., COLOURS[kind // 8 % len(COLOURS)]]


def write(number: int, folder: Path) -> None:
    """As a JPEG of quality 95 with halved chroma, as most cameras and programs write it."""
    Image.fromarray(variant(number)).save(folder / f"{number:06d}.jpg", quality=95, subsampling="4:2:0")


def make(folder: Path, count: int) -> None:
    """Fill a folder, by all cores. Forks, which use no GPU: fresh processes would import torch first."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        list(pool.map(partial(write, folder=folder), range(count), chunksize=64))


def fit(network, *, steps: int, device, batch: int = 8) -> None:
    """Teach a generator by L1 alone to draw B from A: pictures cost an encoder other time than grey and noise do."""
    import torch

    pairs = torch.from_numpy(np.stack([variant(number) for number in range(len(SAMPLES))])).to(device)
    images = pairs.permute(0, 3, 1, 2).float().div(127.5).sub(1)
    network.to(device).train()
    adam = torch.optim.Adam(network.parameters(), lr=5e-4, betas=(0.5, 0.999))
    for _ in range(steps):
        chosen = images[torch.randperm(len(images), device=device)[:batch]]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = (network(chosen[..., :SIZE]) - chosen[..., SIZE:]).abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    network.cpu().eval()
