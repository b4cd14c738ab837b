#!/usr/bin/env python3
"""Two baselines for a translation: the input returned unchanged, and a table of colours.

    python -m benchmarks.baselines data/emoji [--image-size 256]

The table replaces each input colour, in 16 levels a channel, by the mean of the targets' colours in its place in the
training pairs. No method that works pixel by pixel is better. Colours that are in no training pair stay as they are.
PSNR and SSIM are computed for each image and then averaged, as in validation.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from p2p.batch import to_frames
from p2p.data.dataset import PairDataset
from p2p.data.pairs import find_pairs
from p2p.data.transforms.torchvision import Torchvision
from p2p.system import atomic

LEVELS = 16


def cells(frames_NHWC: np.ndarray) -> np.ndarray:
    """uint8 RGB -> the index of each pixel's cell, 0 to LEVELS^3 - 1."""
    red, green, blue = np.moveaxis(frames_NHWC.astype(np.int64) * LEVELS // 256, -1, 0)
    return (red * LEVELS + green) * LEVELS + blue


def colour_table(pairs: PairDataset) -> np.ndarray:
    """The mean target colour of each cell of input colours, float64 (LEVELS^3, 3) in [0, 255]; NaN where none was."""
    count, total = np.zeros(LEVELS**3), np.zeros((3, LEVELS**3))
    for index in range(len(pairs)):
        inputs, targets = (to_frames(images) for images in (pairs[index].input_NCHW, pairs[index].target_NCHW))
        cell, colours = cells(inputs.numpy()).ravel(), targets.numpy().reshape(-1, 3)
        count += np.bincount(cell, minlength=LEVELS**3)
        for channel in range(3):
            total[channel] += np.bincount(cell, weights=colours[:, channel], minlength=LEVELS**3)
    with np.errstate(invalid="ignore"):
        return (total / count).T


def apply(table: np.ndarray, images_NCHW: torch.Tensor) -> torch.Tensor:
    """float (N, 3, H, W) in [-1, 1] -> the same with the table's colours."""
    frames = to_frames(images_NCHW).numpy()
    colours = table[cells(frames)]
    colours = np.where(np.isnan(colours), frames, colours)
    return torch.from_numpy(np.moveaxis(colours, -1, 1).astype(np.float32) / 127.5 - 1.0)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a data set with train/ and val/")
    parser.add_argument("--direction", default="AtoB", choices=["AtoB", "BtoA"])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--output", type=Path, help="a JSON to write")
    args = parser.parse_args(arguments)
    transform = Torchvision(image_size=args.image_size)
    train, val = (
        PairDataset(
            find_pairs(args.root / split, direction=args.direction),
            transform,
            augment=False,  # all of each image, once
        )
        for split in ("train", "val")
    )
    table = colour_table(train)
    scores = {}
    for name, translate in (
        ("unchanged", lambda images: images),
        ("colour table", lambda images: apply(table, images)),
    ):
        psnr = PeakSignalNoiseRatio(data_range=(-1.0, 1.0), dim=(1, 2, 3), reduction="elementwise_mean")
        ssim = StructuralSimilarityIndexMeasure(data_range=(-1.0, 1.0))
        for index in range(len(val)):
            pair = val[index]
            output_NCHW = translate(pair.input_NCHW)
            psnr.update(output_NCHW, pair.target_NCHW)
            ssim.update(output_NCHW, pair.target_NCHW)
        scores[name] = {"PSNR": psnr.compute().item(), "SSIM": ssim.compute().item()}
        print(f"{name:14} PSNR {scores[name]['PSNR']:6.2f} dB  SSIM {scores[name]['SSIM']:.3f}")
    if args.output:
        atomic.write(args.output, json.dumps(scores, indent=1) + "\n")
    return scores


if __name__ == "__main__":
    main()
