"""What a server refuses, with the HTTP status and one sentence, and how many images it takes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for.

    Attributes:
        max_bytes: of a request's body.
        max_pixels: of an image.
        max_pixels_whole: of an image with size=input, all of which the network sees at once.
        queue: images that are in the server at a time, from the first byte of their request to the last of the answer.
        timeout_s: seconds that a body may take to arrive, and that its translation may take then.
    """

    max_bytes: int
    max_pixels: int
    max_pixels_whole: int
    queue: int
    timeout_s: float


class Refused(Exception):
    """A request, or one image of it, is not translated.

    Attributes:
        status: of HTTP.
        sentence: why, for the client.
    """

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Places:
    """The places of a queue that is bounded. All calls come from one thread, that of the event loop."""

    def __init__(self, count: int):
        self.count, self.taken = count, 0

    @contextmanager
    def take(self, images: int) -> Iterator[None]:
        """Hold places for so many images meanwhile.

        Raises:
            Refused: there are not so many.
        """
        if self.taken + images > self.count:
            raise Refused(
                429, f"all {self.count} places are taken: try again in a second, or with fewer images at once"
            )
        self.taken += images
        try:
            yield
        finally:
            self.taken -= images
