"""Instance norms that go by the statistics of a whole image, though they see one batch of its tiles at a time.

A first pass over the tiles adds up what each norm sees, a second one translates them by these sums. In the first pass a
norm goes by its tile, so what the norms behind it see, and with that their sums, is near to the whole image's and not
equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

NORMS = (F.instance_norm, torch.ops.aten.instance_norm.default)  # of a module, and of a graph of torch.export


class ImageStats(TorchFunctionMode):
    """Within it norms note what they see or, after `use`, go by that. For one image, and one thread."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: list[torch.Tensor] = []  # by norm, in the order of calls: of means and mean squares, (2, C)
        self._counts: list[int] = []  # of tiles
        self._call, self._used = 0, False

    def check(self) -> None:
        """Raise a ValueError if there was no such norm."""
        if not self._sums:
            raise ValueError("tile_stats=image is of instance norms, and the program has none: use tile_stats=tile")

    def use(self) -> None:
        """From now on norms go by what was noted.

        Raises:
            ValueError: see `check`.
        """
        self.check()
        self._used = True

    def of(self, network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """The network, of which every call meets the same norms in the same order."""

        def called(images: torch.Tensor) -> torch.Tensor:
            self._call = 0
            return network(images)

        return called

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """What torch calls in the place of each of its functions."""
        kwargs = kwargs or {}
        if function not in NORMS:
            return function(*args, **kwargs)
        input_NCHW = args[0] if args else kwargs["input"]
        call, self._call = self._call, self._call + 1
        if self._used:
            mean, square = self._sums[call] / self._counts[call]
            stats = mean, (square - mean.square()).clamp_(min=0)
            mean, variance = (each.to(input_NCHW.dtype) for each in stats)
            return F.batch_norm(input_NCHW, mean, variance, kwargs["weight"], kwargs["bias"], eps=kwargs["eps"])
        values = input_NCHW.float()
        seen = torch.stack([values.mean((2, 3)).sum(0), values.square().mean((2, 3)).sum(0)])
        if call == len(self._sums):
            self._sums.append(torch.zeros_like(seen))
            self._counts.append(0)
        self._sums[call] += seen
        self._counts[call] += len(values)
        return function(*args, **kwargs)
