"""Pages of TIFF files as images of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from p2p.codecs import tiff
from p2p.system.urls import is_url

Pages = Literal["first", "all"]  # of a TIFF file of several: the first, or each as an image
Named = tuple[str, str, int | None]  # the image's name, its file, and the place of its page


def check_pages(pages: str, *, key: str = "pages") -> None:
    """Raise a ValueError, which names the setting, if it is none."""
    if pages not in get_args(Pages):
        raise ValueError(f"{key}={pages} is not known: use first or all")


def left_out(files: Iterable[Path]) -> str | None:
    """What to say of pages beside the first, by the first TIFF among some files; None if it has no others."""
    path = next((path for path in files if _is_tiff(path.name) and not is_url(path)), None)
    more = 0 if path is None else len(tiff.pages(path)) - 1
    return f"{path} has {more} more page{'s' if more > 1 else ''}, left out" if more > 0 else None


def paged(images: list[Named]) -> list[Named]:
    """An image for each page of a file that has several, x_p000, x_p001 and so on, in the order of the files.

    Not one file of several pages, because an image is what a batch, a failure and an output are of, and formats such as
    PNG have no pages.

    Raises:
        ValueError: a page would have the name of another image.
    """
    found: list[Named] = []
    for name, path, _ in images:
        places = tiff.pages(Path(path)) if _is_tiff(path) else []
        if len(places) > 1:
            found += [(f"{name}_p{number:03}", path, place) for number, place in enumerate(places)]
        else:
            found.append((name, path, None))
    owners: dict[str, str] = {}
    for name, path, _ in found:
        if owners.setdefault(name, path) != path:
            raise ValueError(
                f"{owners[name]} and {path} would both be written as {Path(name).name}, one of them a page: rename one"
                " of them"
            )
    return found


def _is_tiff(name: str) -> bool:
    return name.lower().endswith((".tif", ".tiff"))
