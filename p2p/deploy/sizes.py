"""Which heights and widths a program takes that is not made for one size. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]  # height and width, in pixels


@dataclass(frozen=True)
class Sizes:
    """From `min` to `max`, both [height, width] in pixels, and multiples of `stride`, as are all between them.

    Attributes:
        opt: [height, width] that a backend tunes for, where it tunes.
    """

    min: list[int]
    opt: list[int]
    max: list[int]
    stride: int

    def __str__(self) -> str:
        least, most = ("x".join(map(str, size)) for size in (self.min, self.max))
        return f"{least} to {most} in steps of {self.stride}"

    def hold(self, height: int, width: int) -> bool:
        """Whether a program takes that."""
        return all(
            low <= side <= high and side % self.stride == 0
            for low, side, high in zip(self.min, (height, width), self.max, strict=True)
        )

    def around(self, size: Size) -> Size:
        """The smallest of them that an image of that size fits into.

        Raises:
            ValueError: there is none; half a sentence.
        """
        height, width = (
            max(low, -(-side // self.stride) * self.stride) for side, low in zip(size, self.min, strict=True)
        )
        if not self.hold(height, width):
            raise ValueError(
                f"it is {size[1]}x{size[0]} pixels, and the exported program takes {self.max[1]}x{self.max[0]} at most:"
                f" export again with size=dynamic 'max_size=[{height},{width}]', or use size=tile"
            )
        return height, width


def check_sizes(sizes: Sizes) -> None:
    """Raise a ValueError if the three do not fit together, or are no multiples of the stride."""
    for key, size in (("min_size", sizes.min), ("opt_size", sizes.opt), ("max_size", sizes.max)):
        for side in size:
            if side < 1 or side % sizes.stride:
                near = max(1, round(side / sizes.stride)) * sizes.stride
                raise ValueError(
                    f"{key}=[{size[0]},{size[1]}] does not suit this generator, whose sides are multiples of"
                    f" {sizes.stride}: use {near} for {side}"
                )
    if not all(a <= b <= c for a, b, c in zip(sizes.min, sizes.opt, sizes.max, strict=True)):
        shown = ", ".join(
            f"{key}=[{size[0]},{size[1]}]"
            for key, size in (("min_size", sizes.min), ("opt_size", sizes.opt), ("max_size", sizes.max))
        )
        raise ValueError(f"{shown} do not fit together: none may be smaller, on either side, than the one before it")
    for low, high in zip(sizes.min, sizes.max, strict=True):
        if high < max(2 * sizes.stride, low + 1):
            raise ValueError(
                f"max_size=[{sizes.max[0]},{sizes.max[1]}] is too small: use {2 * sizes.stride} or more on each"
                " side, and more than min_size, or size=[height,width] for one size"
            )
