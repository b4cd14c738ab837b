"""What the files of inputs, or of targets, mean: pictures, numbers of a range, or labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import ImageColor

from p2p.codecs.jpeg import JPEG
from p2p.codecs.pillow import decode as by_pillow
from p2p.codecs.values import check_finite, check_labels, read_labels, read_values
from p2p.levels import to_shares

Decode = Callable[..., np.ndarray]
Range = list[float] | Literal["auto", "percentile"]

MOST_LABELS = 1024
INSTANCES = 1000  # Cityscapes' instance maps: 1000 * label + number, and label alone where there are no instances
DROPPED = "drop"  # of alpha: it is left out


@dataclass(frozen=True)
class Reading:
    """How the bytes of a file become a frame. It travels to worker processes.

    Attributes:
        channels: that the network sees.
        range: the numbers of a file that are black and white; None: those of its dtype, see `p2p.codecs.pillow.decode`.
        labels: how many, of files that hold a label for each pixel: one channel for each; None: they are pictures.
        edges: files are instance maps, see INSTANCES, and one more channel has the instances' edges.
        background: what transparent images are laid on; None: transparency is left out.
    """

    channels: int
    range: tuple[float, float] | None = None
    labels: int | None = None
    edges: bool = False
    background: str | None = None

    @property
    def of_pictures(self) -> bool:
        """Whether files are pictures, so that JPEG files are what any decoder makes of them."""
        return self.range is None and self.labels is None

    def frame(self, data: bytes, decode: Decode = by_pillow) -> np.ndarray:
        """The bytes of a file -> what `decode` makes of them, in a range float32 in [0, 1]; of labels int32 (H, W, 1).

        Args:
            data: a whole file.
            decode: of pictures; of what else there is p2p's own readers are used.

        Raises:
            ValueError: they cannot be decoded, and why, as half a sentence.
        """
        if self.labels is not None:
            return self.of_values(read_labels(data))
        if self.range is not None:
            return self.of_values(read_values(data, channels=self.channels, background=self.background))
        if self.background is not None and not data.startswith(JPEG):
            return by_pillow(data, channels=self.channels, background=self.background)
        return decode(data, channels=self.channels)

    def of_values(self, values_HWC: np.ndarray) -> np.ndarray:
        """What a file's numbers, or an array, are as a frame, see `frame`; of pictures as they are.

        Raises:
            ValueError: they are not labels, or one is too large; they are not finite.
        """
        if self.labels is None:
            if self.range is None:
                return values_HWC
            check_finite(values_HWC)
            return to_shares(values_HWC, *self.range)
        check_labels(values_HWC)
        values_HWC = values_HWC.astype(np.int32)
        highest = int(self._labels(values_HWC).max())
        if highest >= self.labels:
            more = (
                "add data.edges=true if it is an instance map"
                if highest >= INSTANCES
                else f"set data.labels={highest + 1}"
            )
            raise ValueError(
                f"it holds the label {highest}, and data.labels={self.labels} are 0 to {self.labels - 1}: {more}, or"
                " give such pixels another label"
            )
        return values_HWC

    def planes(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Labels at the network's size -> uint8 (H, W, channels), 255 in the plane of a pixel's label and on edges.

        What is not int32 is not a label map, and stays as it is.
        """
        if self.labels is None or frame_HWC.dtype != np.int32:
            return frame_HWC
        planes = [self._labels(frame_HWC) == np.arange(self.labels)]
        if self.edges:
            planes.append(edges_of(frame_HWC))
        return np.concatenate(planes, axis=2).astype(np.uint8) * np.uint8(255)

    def _labels(self, frame_HWC: np.ndarray) -> np.ndarray:
        return np.where(frame_HWC < INSTANCES, frame_HWC, frame_HWC // INSTANCES) if self.edges else frame_HWC


RGB = Reading(3)


def edges_of(instances_HWC: np.ndarray) -> np.ndarray:
    """bool (H, W, 1): whether the pixel to the left, right, above or below has another number.

    Wang et al. 2018, "High-Resolution Image Synthesis with Conditional GANs", sec. 3.4.
    """
    found = np.zeros(instances_HWC.shape, bool)
    across = instances_HWC[:, 1:] != instances_HWC[:, :-1]
    down = instances_HWC[1:] != instances_HWC[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found


def readings(
    *,
    input_channels: int,
    target_channels: int,
    range: Range | None = "auto",
    target_range: Range | None = None,
    labels: int | None = None,
    edges: bool = False,
    alpha: str = DROPPED,
) -> tuple[Reading, Reading]:
    """Those of inputs and of targets, by the settings of data=; see `p2p.data.datamodule.PairedImages`.

    Raises:
        ValueError: a setting cannot be, or contradicts another.
    """
    background = None if alpha == DROPPED else checked_colour(alpha)
    both = checked_range(range, "range")
    of_targets = both if target_range is None else checked_range(target_range, "target_range")
    target = Reading(target_channels, of_targets, background=background)
    if labels is None:
        if edges:
            raise ValueError("data.edges=true needs data.labels, the number of labels in the instance maps: add it")
        return Reading(input_channels, both, background=background), target
    if not 2 <= labels <= MOST_LABELS:
        raise ValueError(f"data.labels={labels} is out of range: use 2 to {MOST_LABELS}")
    if input_channels != labels + edges:
        raise ValueError(
            f"data.input_channels={input_channels} does not suit data.labels={labels}{' data.edges=true' * edges},"
            f" which make {labels + edges}: leave it out"
        )
    return Reading(input_channels, labels=labels, edges=edges), target


def readings_of(data: Mapping[str, Any]) -> tuple[Reading, Reading]:
    """Those of the settings of data= in a run's record, also of an earlier version's."""
    given = {key: data[key] for key in ("range", "target_range", "labels", "edges", "alpha") if key in data}
    given |= {key: list(given[key]) for key in ("range", "target_range") if not isinstance(given.get(key), str | None)}
    return readings(input_channels=data["input_channels"], target_channels=data["target_channels"], **given)


def facts_of_readings(input: Reading, target: Reading) -> dict[str, Any]:
    """What an exported program keeps of them, beside the channels; see `from_facts`."""
    ranges = (None if each.range is None else list(each.range) for each in (input, target))
    kept: dict[str, Any] = dict(zip(("input_range", "target_range"), ranges, strict=True))
    return kept | {"labels": input.labels, "edges": input.edges, "background": target.background}


def from_facts(channels: tuple[int, int], facts: Mapping[str, Any]) -> tuple[Reading, Reading]:
    """The inverse of `facts_of_readings`; channels: of inputs and of targets."""
    ranges = (facts["input_range"], facts["target_range"])
    of_inputs, of_targets = (None if each is None else (each[0], each[1]) for each in ranges)
    background = facts["background"]
    return (
        Reading(channels[0], of_inputs, facts["labels"], facts["edges"], background),
        Reading(channels[1], of_targets, background=background),
    )


def checked_range(value: Range | None, key: str) -> tuple[float, float] | None:
    """What a setting of data= means; None for auto.

    Raises:
        ValueError: it is not a range.
    """
    if value is None or value == "auto":
        return None
    if value == "percentile":
        raise ValueError(f"data.{key}=percentile is measured by train.py, and the record has the two numbers: use them")
    numbers = isinstance(value, list) and len(value) == 2 and all(type(each) in (int, float) for each in value)
    if not (numbers and np.isfinite(value).all() and value[0] < value[1]):
        shown = str(value).replace(" ", "")
        raise ValueError(f"data.{key}={shown} is not valid: use auto, percentile, or black and white, such as [0,4095]")
    return float(value[0]), float(value[1])


def checked_colour(name: str) -> str:
    """A colour's name, or #rrggbb; raise a ValueError for another word."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(str(name))
    except ValueError:
        raise ValueError(f"data.alpha={name} is not known: use drop, white, black, or another colour") from None
    return name.lower() if name.isalpha() else f"#{red:02x}{green:02x}{blue:02x}"
