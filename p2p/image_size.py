"""The setting image_size: one number for squares, or [height, width], in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ImageSize = int | list[int]


def height_and_width(image_size: ImageSize | Sequence[int], *, key: str = "image_size") -> tuple[int, int]:
    """Both sides.

    Raises:
        ValueError: it is neither a whole number nor two of them; the sentence calls it `key`.
    """
    several = isinstance(image_size, Iterable) and not isinstance(image_size, str)
    sides: tuple[Any, ...] = tuple(image_size) if several else (image_size, image_size)  # type: ignore[arg-type]
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        words = ",".join("null" if side is None else str(side).replace(" ", "") for side in sides)
        given = f"[{words}]" if several else image_size
        raise ValueError(
            f"{key}={given} is not a size: use [height,width] in pixels, such as [256,512], or one number for both"
        )
    height, width = sides
    return height, width


def as_setting(height: int, width: int) -> ImageSize:
    """One number for a square, else [height, width]."""
    return height if height == width else [height, width]


def shown(image_size: ImageSize | Sequence[int]) -> str:
    """As it is typed: 256, or [256,512]."""
    height, width = height_and_width(image_size)
    return str(height) if height == width else f"[{height},{width}]"


def power_of_two_in(image_size: ImageSize) -> int:
    """The largest power of two that divides both sides; 0 where one is not positive."""
    height, width = height_and_width(image_size)
    return (height | width) & -(height | width) if min(height, width) > 0 else 0


def suggestion(image_size: ImageSize, *, multiple: int, least: int) -> str:
    """Two sizes nearby of which both sides are multiples, and `least` or more: "96 or 128"."""
    sides = height, width = height_and_width(image_size)
    below = [max(least, side // multiple * multiple) for side in sides]
    above = [low if low == side else low + multiple for side, low in zip(sides, below, strict=True)]
    return " or ".join(str(size[0]) if height == width else f"[{size[0]},{size[1]}]" for size in (below, above))
