"""The numbers that are black and white, found in the training pairs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from p2p.codecs.values import check_finite, read_values
from p2p.data.cache import THREADS
from p2p.data.images import half_of, read_file
from p2p.data.pairs import Source
from p2p.data.reading import Reading

IMAGES, VALUES = 1_000, 16_384  # that are looked at at most, evenly spread, and numbers of each


def percentiles(sources: list[Source], reading: Reading, shares: list[float]) -> list[float]:
    """The percentiles of the numbers in some images; exact if there are no more of them than IMAGES and VALUES.

    Args:
        sources: of the images.
        reading: of their files, without a range.
        shares: two, in per cent.

    Raises:
        ValueError: an image cannot be read, or all numbers are the same.
    """

    def some_of(source: Source) -> np.ndarray:
        try:
            values_HWC = half_of(
                read_values(read_file(source), channels=reading.channels, background=reading.background), source
            )
            check_finite(values_HWC)
        except ValueError as error:
            raise ValueError(f"cannot read {source.path}: {error}") from error
        values = values_HWC.reshape(-1)
        return values[:: -(-values.size // VALUES)].astype(np.float64)

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        values = np.concatenate([*pool.map(some_of, sources[:: -(-len(sources) // IMAGES)])])
    low, high = (float(f"{number:.7g}") for number in np.percentile(values, shares))  # the digits that float32 has
    if not low < high:
        raise ValueError(
            f"data.range=percentile finds {low:g} at {shares[0]:g} and {high:g} at {shares[1]:g} per cent in the images"
            f" beside {sources[0].path}, which leaves no range: give one, as in data.range=[0,4095]"
        )
    return [low, high]
