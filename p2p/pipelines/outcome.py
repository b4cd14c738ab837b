"""What becomes of the images of a run, whoever translates them: which failed, and how many are through."""

from __future__ import annotations

from collections.abc import Callable

from tqdm import tqdm

from p2p.data.pairs import Pair

KEPT = 1000  # failures whose reasons are kept


class Outcome:
    """Of every image of a run.

    Attributes:
        failures: by name, why an image could not be translated; of more than KEPT the names alone, since memory is not
            to grow with them.
        on_failure: called with each such pair, the stage at which it failed, and why.
        on_image: called after each image that is done, or failed.
    """

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.on_failure: Callable[[Pair, str, str], object] = lambda *_: None
        self.on_image: Callable[[], object] = lambda: None

    def fail(self, pair: Pair, stage: str, reason: str) -> None:
        """Note that an image cannot be translated, at which stage that was found, and why."""
        self.failures[pair.name] = reason if len(self.failures) < KEPT else ""
        self.on_failure(pair, stage, reason)
        self.on_image()


def progress_bar(images: int) -> tqdm:
    """A bar that counts images; none where the output is no terminal."""
    return tqdm(total=images, unit="image", desc="translate", disable=None, leave=False)
