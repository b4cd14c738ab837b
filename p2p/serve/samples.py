"""Images to start a drawing from, and colours to draw with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from p2p import shipped
from p2p.codecs.pillow import MODES, decode
from p2p.codecs.png import encode_png
from p2p.data.images import read_input
from p2p.data.pairs import Direction, Pair, find_inputs
from p2p.data.reading import Reading
from p2p.data.splits import find_split
from p2p.data.transforms.sizing import to_size
from p2p.run.record import read_record

if TYPE_CHECKING:
    from p2p import Translator

MOST = 8  # images
COLOURS = 12
APART = 72  # sum of the differences of two colours' levels, at least
USUAL = ("#ffffff", "#000000", "#808080", "#e11d48", "#f97316", "#facc15", "#22c55e", "#0ea5e9", "#6366f1", "#8b5cf6")
RECORD = "train.yaml"
log = logging.getLogger(__name__)
# The labels of the CMP facade data base (Tylecek and Sara 2013), in the colours of pix2pix's facades.tar.gz: 12 of
# MATLAB's jet(64). Its files are JPEG: in flat areas of 125 of the 500 pairs, 4 pixels away from other labels, each
# label's median is within 1 of them, and 87 to 98 % of its pixels are within 3.
FACADES = {
    "background": "#0000df",
    "wall": "#0030ff",
    "window": "#0080ff",
    "door": "#00cfff",
    "cornice": "#20ffdf",
    "sill": "#70ff8f",
    "balcony": "#bfff40",
    "blind": "#ffef00",
    "decoration": "#ff9f00",
    "moulding": "#ff5000",
    "pillar": "#ff0000",
    "shop": "#af0000",
}


def found(translator: Translator, given: str | None) -> list[Pair]:
    """Up to MOST images that a model translates, evenly spread.

    Args:
        given: where they are, see `p2p.data.pairs.find_inputs`; None: the validation images of the model's run, or
            those that p2p ships for a model that it ships.

    Raises:
        ValueError: there are none where they were said to be.
    """
    direction: Direction = "BtoA" if translator.direction == "BtoA" else "AtoB"
    if given is None:
        pairs = _of_the_model(translator, direction)
    else:
        try:
            pairs = find_inputs(given, direction=direction)
        except ValueError as error:  # which names the setting of infer.py
            raise ValueError(str(error).replace("input=", "samples=", 1)) from error
    step = max(1, len(pairs) // MOST)
    return pairs[::step][:MOST]


def _of_the_model(translator: Translator, direction: Direction) -> list[Pair]:
    source = Path(translator.source).absolute()
    try:
        if source in shipped.models().values():
            return find_split(shipped.SAMPLES, "val", key="val", direction=direction)[0]
        for folder in (source, *source.parents[:2]):  # a run, an export or a checkpoint in it
            if (folder / RECORD).is_file():
                data = read_record(folder).data
                return find_split(
                    Path(data.root), data.val, key="data.val", direction=direction, layout=data.get("layout")
                )[0]
    except ValueError as error:
        log.info("no samples: %s", error)  # the data set is elsewhere
    return []


def frames_of(translator: Translator, pairs: list[Pair]) -> list[np.ndarray]:
    """The images, uint8 (H, W, 1 or 3), at the size of the model; what cannot be read is left out."""
    if not draws(translator):
        return []
    frames, reading = [], Reading(translator.input_shape[0])
    for pair in pairs:
        try:
            frame_HWC = read_input(pair, decode, reading=reading)
        except ValueError as error:
            log.warning("no sample: %s", error)
            continue
        if frame_HWC.dtype == np.uint8:
            frames.append(to_size(frame_HWC, *side_of(translator)))
    return frames


def draws(translator: Translator) -> bool:
    """Whether inputs and outputs are pictures, which a page can draw and show."""
    channels, labels = translator.input_shape[0], translator.readings and translator.readings[0].labels
    return channels in MODES and translator.output_channels in MODES and labels is None


def side_of(translator: Translator) -> tuple[int, int]:
    """Height and width of what is drawn."""
    return translator.tile


def png(frame_HWC: np.ndarray) -> bytes:
    """A frame as a file."""
    return encode_png(np.ascontiguousarray(frame_HWC), level=1)


def palette(choice: str, frames: list[np.ndarray]) -> dict[str, str]:
    """Colours to draw with, #rrggbb by name, the one of the empty canvas first.

    Args:
        choice: "facades", or "auto" for the most frequent colours of `frames`.
    """
    if choice == "facades":
        return FACADES
    if choice != "auto":
        raise ValueError(f"palette={choice} is not known: use auto or facades")
    if not frames:
        return {colour: colour for colour in USUAL}
    pixels = np.concatenate([np.broadcast_to(each, (*each.shape[:2], 3))[::2, ::2].reshape(-1, 3) for each in frames])
    # Levels of 16, so that what a JPEG or a smooth edge makes of a colour counts as that colour.
    _, of, count = np.unique(pixels // 16, axis=0, return_inverse=True, return_counts=True)
    chosen: list[np.ndarray] = []
    for group in np.argsort(-count, kind="stable"):
        if len(chosen) == COLOURS:
            break
        colour = np.median(pixels[of.ravel() == group], axis=0)
        if all(np.abs(colour - other).sum() > APART for other in chosen):
            chosen.append(colour)
    return {name: name for name in ("#{:02x}{:02x}{:02x}".format(*colour.astype(int)) for colour in chosen)}


def facts(translator: Translator, name: str, *, palette: dict[str, str], count: int) -> dict[str, Any]:
    """What a page says of the model, and what it draws with; count: of samples."""
    height, width = side_of(translator)
    return {
        "name": name,
        "draws": draws(translator),
        "labels": bool(translator.readings and translator.readings[0].labels),
        "height": height,
        "width": width,
        "channels": [translator.input_shape[0], translator.output_channels],
        "backend": translator.backend,
        "precision": translator.precision,
        "device": str(translator.device),
        "palette": palette,
        "samples": count,
    }
