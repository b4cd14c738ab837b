#!/usr/bin/env python3
"""Can the labels be read back from a generated photo? A score in the spirit of the paper's FCN score.

    python -m benchmarks.readback data/facades [NAME=FOLDER ...] [--override image_size=64 ...]

A U-Net learns photo -> labels from the training pairs of facades, by L1 alone (`experiment=paper_l1`,
`data.direction=AtoB`). It then reads the labels of the validation photos, of the real ones and of those in each FOLDER,
which `infer.py` has made from the validation labels. Each pixel read counts as the class of the nearest colour of the
palette, and is compared with the class of the same pixel in the true labels (Long et al. 2015, sec. 5):

- pixel: the share of the pixels that are read right.
- class: the same share of each class, averaged over the classes.
- IoU: of each class the pixels that are it in both, over those that are it in either, averaged over the classes.

The row of the real photos is the most that this reader can reach. A row that reads "facade" everywhere is the least.
PSNR compares with one photo, and rewards the mean of all possible ones. This score asks whether a photo shows what the
labels say.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import p2p
from benchmarks.sweep import sweep
from p2p.api.translator import Translator
from p2p.batch import to_frames
from p2p.codecs.pillow import decode
from p2p.data.dataset import PairDataset
from p2p.data.pairs import find_pairs
from p2p.data.transforms.torchvision import Torchvision

# The medians of the flat parts of the 400 training label maps, none of which is further than 50 from its colour. The
# names are the classes of CMP Facades (Tylecek and Sara 2013), in its order, which that of the rainbow is taken to be.
PALETTE = {
    "background": (0, 0, 222),
    "facade": (0, 48, 255),
    "window": (0, 128, 255),
    "door": (1, 207, 255),
    "cornice": (32, 255, 224),
    "sill": (112, 254, 142),
    "balcony": (192, 255, 63),
    "blind": (255, 240, 1),
    "decoration": (255, 159, 0),
    "molding": (255, 80, 0),
    "pillar": (253, 0, 0),
    "shop": (174, 0, 1),
}
NEAR = 60  # of a palette's colour, in which lie 0.89 of the pixels of label maps; JPEG blurs the others' colours


def distances(frames: np.ndarray) -> np.ndarray:
    """uint8 RGB (..., 3) -> the squared distance from each colour of the palette, int64 (..., 12)."""
    colours = np.array(list(PALETTE.values()), np.int64)
    return np.stack([np.square(frames - colour).sum(-1) for colour in colours], axis=-1)


def classes(frames: np.ndarray) -> np.ndarray:
    """uint8 RGB (..., 3) -> the index of the nearest colour of the palette, (...)."""
    return distances(frames).argmin(-1)


def confusion(truth: np.ndarray, read: np.ndarray) -> np.ndarray:
    """How many pixels of each class (row) were read as each class (column): int64 (12, 12)."""
    count = len(PALETTE)
    return np.bincount((truth * count + read).ravel(), minlength=count * count).reshape(count, count)


def scores(matrix: np.ndarray) -> dict[str, float]:
    """ "pixel", "class" and "IoU", see above; classes that are nowhere do not count."""
    right, true, read = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    there, either = true > 0, true + read > right
    return {
        "pixel": float(right.sum() / matrix.sum()),
        "class": float((right[there] / true[there]).mean()),
        "IoU": float((right[either] / (true + read - right)[either]).mean()),
    }


def validation(root: Path, size: int) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Names, labels and photos of the validation pairs, as the networks see them: uint8 frames (size, size, 3).

    Raises:
        ValueError: the right halves are no label maps of this palette.
    """
    pairs = find_pairs(root / "val", direction="BtoA")
    data = PairDataset(pairs, Torchvision(image_size=size), augment=False)
    labels, photos = (
        [to_frames(getattr(data[index], side))[0].numpy() for index in range(len(data))]
        for side in ("input_NCHW", "target_NCHW")
    )
    near = np.mean([distances(frame).min(-1) < NEAR**2 for frame in labels])
    if near < 0.5:
        raise ValueError(
            f"only {near:.0%} of the pixels in the right halves of {root / 'val'} have the colours of facades' labels:"
            " name the folder of pix2pix's facades, photo | labels"
        )
    return [pair.name for pair in pairs], labels, photos


def written(folder: Path, names: list[str]) -> list[np.ndarray]:
    """The PNG files that `infer.py` has written for those names: uint8 frames (H, W, 3)."""
    return [decode((folder / f"{name}.png").read_bytes()) for name in names]


def trained_reader(root: Path, folder: Path, overrides: list[str], *, epochs: int) -> Translator:
    """Train it in `folder`, unless it is there: photos -> labels."""
    sweep(["paper_l1"], folder, ["data=facades", f"data.root={root}", "data.direction=AtoB", *overrides], epochs=epochs)
    return p2p.load(folder / "paper_l1")


def readback(reader: Callable, photos: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, float]:
    """The scores of photos, uint8 frames (H, W, 3), against the labels that they should show."""
    return scores(
        sum(confusion(classes(truth), classes(read)) for truth, read in zip(labels, reader(photos), strict=True))
    )


def ends(reader: Callable, photos: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """The scores between which those of generated photos are to be expected."""
    everywhere = [np.full_like(frame, PALETTE["facade"]) for frame in labels]
    return {
        "facade everywhere": readback(lambda frames: frames, everywhere, labels),
        "real photos": readback(reader, photos, labels),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="facades, with train/ and val/")
    parser.add_argument("photos", nargs="*", metavar="NAME=FOLDER", help="outputs for the validation labels, as PNG")
    parser.add_argument("--reader", type=Path, default=Path("runs/reader"), help="where it is, or is to be trained")
    parser.add_argument("--epochs", type=int, default=100, help="of its training")
    parser.add_argument("--override", action="append", default=[], help="a setting of its training")
    args = parser.parse_args(arguments)
    reader = trained_reader(args.root.resolve(), args.reader.resolve(), args.override, epochs=args.epochs)
    names, labels, photos = validation(args.root, reader.image_size)
    rows = ends(reader, photos, labels)
    for name, _, folder in (each.rpartition("=") for each in args.photos):
        rows[name] = readback(reader, written(Path(folder), names), labels)
    print("\n| | pixel | class | IoU |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{score:.3f}' for score in row.values())} |")


if __name__ == "__main__":
    main()
