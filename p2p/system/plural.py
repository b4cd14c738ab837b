"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """ "1 image", "2 images", "1,000 images": one thing and several, by default with an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
