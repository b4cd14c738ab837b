"""What a compiled program takes, kept as text inside its file, so that it can refuse other inputs by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Takes:
    """The inputs of a program.

    Attributes:
        min_batch, max_batch: batches, None: any above.
        image: (C, H, W); (H, W, C) of uint8.
        dtype: a name in torch, such as "float16".
    """

    min_batch: int
    max_batch: int | None
    image: tuple[int, int, int]
    dtype: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image[:2] if self.dtype == "uint8" else self.image[1:]

    def to_text(self) -> dict[str, str]:
        """For the metadata of a file."""
        return {
            "min_batch": str(self.min_batch),
            "max_batch": "any" if self.max_batch is None else str(self.max_batch),
            "image": "x".join(map(str, self.image)),
            "dtype": self.dtype,
        }

    @classmethod
    def from_text(cls, text: dict[str, str]) -> Takes:
        """The inverse of `to_text`; other keys may be there.

        Raises:
            KeyError, ValueError: this was not written by `to_text`.
        """
        first, second, third = map(int, text["image"].split("x"))
        max_batch = None if text["max_batch"] == "any" else int(text["max_batch"])
        return cls(int(text["min_batch"]), max_batch, (first, second, third), text["dtype"])

    def check(self, images: torch.Tensor) -> None:
        """Raise a ValueError for an input of another shape or dtype."""
        count, *image = images.shape
        enough = self.min_batch <= count and (self.max_batch is None or count <= self.max_batch)
        if not enough or tuple(image) != self.image or str(images.dtype) != f"torch.{self.dtype}":
            takes, found = self.to_text(), "x".join(map(str, image))
            raise ValueError(
                f"the program takes batches of {takes['min_batch']} to {takes['max_batch']} images of {takes['image']}"
                f" in {self.dtype}, not {count} of {found} in {str(images.dtype).removeprefix('torch.')}"
            )
