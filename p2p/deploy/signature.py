"""Which batches a program takes. Compiled code trusts its input, so that this is checked before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from p2p.deploy.sizes import Sizes


@dataclass(frozen=True)
class Signature:
    """The inputs of a program. Compiled ones keep it as text inside of their file.

    Attributes:
        min_batch, max_batch: batches, None: any above.
        image: (C, H, W); (H, W, C) of uint8.
        dtype: a name in torch, such as "float16".
        sizes: heights and widths that may stand in the place of the image's; None: none.
    """

    min_batch: int
    max_batch: int | None
    image: tuple[int, int, int]
    dtype: str
    sizes: Sizes | None = None

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
        } | ({} if self.sizes is None else {"sizes": json.dumps(asdict(self.sizes))})

    @classmethod
    def from_text(cls, text: dict[str, str]) -> Signature:
        """The inverse of `to_text`; other keys may be there.

        Raises:
            KeyError, ValueError, TypeError: this was not written by `to_text`.
        """
        first, second, third = map(int, text["image"].split("x"))
        max_batch = None if text["max_batch"] == "any" else int(text["max_batch"])
        sizes = Sizes(**json.loads(text["sizes"])) if "sizes" in text else None
        return cls(int(text["min_batch"]), max_batch, (first, second, third), text["dtype"], sizes)

    def check(self, images: torch.Tensor) -> None:
        """Raise a ValueError for an input of another shape or dtype."""
        count, *image = images.shape
        enough = self.min_batch <= count and (self.max_batch is None or count <= self.max_batch)
        if not enough or not self._fits(tuple(image)) or str(images.dtype) != f"torch.{self.dtype}":
            text, found = self.to_text(), "x".join(map(str, image))
            if self.sizes is not None:
                text["image"] += f" or heights and widths of {self.sizes}"
            raise ValueError(
                f"the program takes batches of {text['min_batch']} to {text['max_batch']} images of {text['image']}"
                f" in {self.dtype}, not {count} of {found} in {str(images.dtype).removeprefix('torch.')}"
            )

    def _fits(self, image: tuple[int, ...]) -> bool:
        if self.sizes is None or len(image) != 3:
            return image == self.image
        rows = 0 if self.dtype == "uint8" else 1
        others = [place for place in range(3) if place not in (rows, rows + 1)]
        return all(image[place] == self.image[place] for place in others) and self.sizes.hold(*image[rows : rows + 2])


def checked(
    run: Callable[[torch.Tensor], torch.Tensor], signature: Signature
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function, which raises a ValueError for other inputs than those of the signature."""

    def checking(images: torch.Tensor) -> torch.Tensor:
        signature.check(images)
        return run(images)

    return checking


def check_batches(min_batch: int, max_batch: int | None) -> None:
    """Raise a ValueError if they contradict each other."""
    if min_batch < 1 or (max_batch is not None and max_batch < min_batch):
        raise ValueError(
            f"backend.min_batch={min_batch} and backend.max_batch={max_batch} do not fit together: the first is at"
            " least 1, the second not smaller, and both are the same for a program of one batch size"
        )
