"""Find image files at a URL, as `p2p.data.walk` does on a disk."""

from __future__ import annotations

import glob

from p2p.data.walk import Skipped, is_image, is_taken, summary
from p2p.system.urls import asked, located

ONE_BY_ONE = ("http", "https")  # servers that do not say what they have


def images_at(source: str, skipped: Skipped) -> tuple[list[str], str]:
    """The URLs of all images below a URL, or that match a pattern, sorted by their parts, and the one they start from.

    Args:
        source: s3://bucket/photos, s3://bucket/photos/*.jpg or https://host/photo.jpg, say.
        skipped: is told what is there and not taken.

    Raises:
        ValueError: there is no image, or nobody can be asked.
    """
    url = located(source)
    store, path = url.fs, url.path.rstrip("/")
    parts = path.split("/")
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    if url.protocol in ONE_BY_ONE and (fixed < len(parts) or not is_image(path)):
        raise ValueError(f"input={source} has no list of its files: name an image, or use input=@list.txt")
    try:
        with asked(source):
            if fixed < len(parts):
                root, found = "/".join(parts[:fixed]), store.glob(path)
            elif is_image(path) and store.isfile(path):
                root, found = "/".join(parts[:-1]), [path]
            else:
                root, found = path, store.find(path)
    except OSError as error:
        raise ValueError(f"input={source} cannot be read ({error.strerror})") from error
    below = sorted(
        (each[len(root) + 1 :] for each in found if not each.endswith("/")), key=lambda path: path.split("/")
    )
    names = [path for path in below if is_taken(path, skipped)]
    if not names:
        raise ValueError(f"there is no image at input={source}{summary(skipped)}")
    start = store.unstrip_protocol(root)
    return [f"{start}/{name}" for name in names], start
