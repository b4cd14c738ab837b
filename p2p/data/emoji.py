"""A free data set of 2,915 real pairs: the flat drawing of an emoji | its shaded 3D render.

The art is Microsoft's Fluent Emoji (MIT License, Copyright (c) Microsoft Corporation), as two npm packages carry it.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

DRAWINGS = "@lobehub/fluent-emoji-flat@1.1.0"  # SVG
RENDERS = "@lobehub/fluent-emoji-3d@1.1.0"  # WebP, 256x256
SIDE = 256

SKIN_TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
GENDERS = ("2640", "2642")
JOINERS = ("fe0f", "200d")
PEOPLE = ("1f468", "1f469", "1f9d1")  # man, woman, person
HELD_OUT, VAL = 8, 12  # of 100 groups the first 8 are in no split, the next 4 are for validation

CREDITS = """Pairs of emoji, flat drawing | 3D render: Microsoft's Fluent Emoji, from the npm packages
{drawings} and {renders}, drawn on white and joined.

MIT License. Copyright (c) Microsoft Corporation.
"""


def build(root: Path, *, quality: int = 85) -> None:
    """Make the folder `root` with 2,705 training and 210 validation pairs, JPEGs of 512x256, 55 MB; takes a minute.

    It needs npm, to fetch the art, and resvg-py, to draw it. The folder is there whole or not at all.

    Args:
        root: folder to be made: train/<code points>.jpg, val/<code points>.jpg and CREDITS.txt.
        quality: of the JPEGs, 1 to 100.

    Raises:
        ValueError: npm or resvg-py is missing, or npm cannot fetch the packages.
    """
    render_svg = _svg_renderer()
    if shutil.which("npm") is None:
        raise ValueError("data=emoji fetches its art with npm, which is not installed: install Node.js, which has it")
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = root.with_name(f".{root.name}.building")
    shutil.rmtree(staging, ignore_errors=True)  # of one that was killed
    staging.mkdir()
    try:
        drawings, renders = (_assets(package, staging) for package in (DRAWINGS, RENDERS))
        pairs = staging / "pairs"
        join(drawings, renders, pairs, render_svg=render_svg, quality=quality)
        (pairs / "CREDITS.txt").write_text(CREDITS.format(drawings=DRAWINGS, renders=RENDERS))
        pairs.replace(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def join(drawings: Path, renders: Path, pairs: Path, *, render_svg: Callable[[Path], bytes], quality: int = 85) -> None:
    """Write the pair of every emoji that both folders have and that both show alike.

    Args:
        drawings, renders: folders of <code points>.svg and of <code points>.webp.
        pairs: folder to write to.
        render_svg: the path of an SVG -> a PNG of 256x256 with alpha.
        quality: of the JPEGs.
    """
    for render in tqdm(sorted(renders.glob("*.webp")), desc="draw emoji", unit="pair", disable=None):
        drawing, split = drawings / f"{render.stem}.svg", split_of(render.stem)
        if split is None or not drawing.is_file():
            continue
        a = Image.open(io.BytesIO(render_svg(drawing))).convert("RGBA")
        b = Image.open(render).convert("RGBA")
        if a.size != b.size or overlap(a, b) < 0.7:  # drawn differently: no pair
            continue
        pair = Image.new("RGBA", (2 * SIDE, SIDE), "white")
        for left, image in ((0, a), (SIDE, b)):
            pair.alpha_composite(image, (left, 0))
        path = pairs / split / f"{render.stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pair.convert("RGB").save(path, quality=quality, subsampling="4:4:4", optimize=True)


def group_of(name: str) -> str:
    """The glyph of an emoji without skin tone and gender, in which the variants of one are nearly equal.

    "1f468-1f3fb-200d-1f680", an astronaut with a light skin, and "1f469-200d-1f680" are both "p-1f680".
    """
    points = [point for point in name.split("-") if point not in (*SKIN_TONES, *GENDERS, *JOINERS)]
    return "-".join("p" if point in PEOPLE else point for point in points)


def split_of(name: str) -> str | None:
    """ "train", "val" or None, by group, so that no validation image is a variant of a training image."""
    bucket = int(hashlib.sha1(group_of(name).encode()).hexdigest(), 16) % 100
    return None if bucket < HELD_OUT else "val" if bucket < VAL else "train"


def overlap(a: Image.Image, b: Image.Image) -> float:
    """Intersection over union of what is opaque in two RGBA images of equal size, 0 to 1."""
    inside, other = (np.asarray(image)[..., 3] > 127 for image in (a, b))
    return (inside & other).sum() / max(1, (inside | other).sum())


def _svg_renderer() -> Callable[[Path], bytes]:
    try:
        import resvg_py
    except ImportError:
        raise ValueError("data=emoji draws with resvg-py, which is not installed: pip install resvg-py") from None
    return lambda path: bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=SIDE, height=SIDE))


def _assets(package: str, folder: Path) -> Path:
    """Fetch an npm package into `folder` and unpack its assets."""
    done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise ValueError(f"npm cannot fetch {package}: {reason}: look at your connection and try again")
    target = folder / package.rpartition("/")[2]
    target.mkdir()
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and path.parent.name == "assets" and path.suffix in (".svg", ".webp"):
                (target / path.name).write_bytes(archive.extractfile(member).read())
    return target
