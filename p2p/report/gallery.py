"""A page and a picture of what was translated."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from p2p.batch import to_frames
from p2p.codecs.fast import encode_png
from p2p.config.shown import shown
from p2p.data.images import read_input, read_pair
from p2p.data.pairs import Pair
from p2p.data.transforms.sizing import to_size
from p2p.deploy.accuracy import psnr_db
from p2p.report.picture import as_picture, contact_sheet, spread
from p2p.system import atomic

PICTURE_ROWS = 8  # of gallery.png; the page has them all


@dataclass
class Entry:
    """One translated image: uint8 frames (H, W, C); `target` and the PSNRs in dB where a target is known."""

    name: str
    input: np.ndarray
    output: np.ndarray
    target: np.ndarray | None = None
    psnr: float | None = None


def collect(
    pairs: list[Pair],
    outputs: list[Path],
    *,
    count: int,
    decode: Callable[..., np.ndarray],
    eval: Callable[[np.ndarray], torch.Tensor],
    channels: tuple[int, int],
    restored: bool,
) -> list[Entry]:
    """`count` of the images that were translated, evenly spread, read back from the files that were written.

    What cannot be read back, because it was deleted meanwhile, say, is left out.

    Args:
        pairs: what was translated.
        outputs: of each its output.
        decode: of a codec, the bytes of a file -> a frame.
        eval: of a transform, a frame -> float32 (C, H, W) in [-1, 1].
        channels: of inputs and of outputs.
        restored: whether outputs were written at the sizes of their inputs.
    """

    def entry(pair: Pair, path: Path) -> Entry:
        output = decode(path.read_bytes(), channels=channels[1])
        if pair.target is None:
            frames: Sequence[np.ndarray] = [read_input(pair, decode, channels=channels[0])]
        else:
            frames = read_pair(pair, decode, input_channels=channels[0], target_channels=channels[1])
        seen = [to_frames(eval(frame)[None])[0].numpy() for frame in frames]
        if restored:  # what it was before, up to the resize
            output = to_size(output, *seen[-1].shape[:2])
        target = None if pair.target is None else seen[1]
        return Entry(pair.name, seen[0], output, target, None if target is None else _psnr(output, target))

    entries: list[Entry] = []
    missing: dict[str, Exception] = {}
    for pair, path in spread(list(zip(pairs, outputs, strict=True)), count):
        try:
            entries.append(entry(pair, path))
        except (ValueError, OSError) as error:  # noqa: PERF203 - of a few dozens
            missing[pair.name] = error
    if missing:
        name, first = next(iter(missing.items()))
        print(f"{len(missing)} images are not in the gallery, such as {shown(f'{name}: {first}')}")
    return entries


def _psnr(output: np.ndarray, target: np.ndarray) -> float:
    a, b = (torch.from_numpy(frame.copy())[None] / 127.5 - 1 for frame in (output, target))
    return psnr_db(a, b).item()


def write(entries: list[Entry], folder: Path, *, title: str, total: int) -> None:
    """Write `index.html`, which needs no other file, and `gallery.png`, some of its rows as one picture.

    Of images with many channels both show the first three, see `p2p.report.picture.as_picture`.

    Args:
        entries: what to show.
        folder: where to.
        title: heading of the page.
        total: how many images were translated, shown beside the number that is displayed.
    """
    header = ["input", "output", "target"] if entries[0].target is not None else ["input", "output"]
    rows = [[getattr(entry, column) for column in header] for entry in entries]
    captions = [_caption(entry) for entry in entries]
    sheet = contact_sheet(spread(rows, PICTURE_ROWS), header=header, captions=spread(captions, PICTURE_ROWS), across=2)
    atomic.sweep(folder)
    atomic.write(folder / "gallery.png", encode_png(np.asarray(sheet)))

    summary = f"{len(entries)} of {total} images"
    scores = [entry.psnr for entry in entries if entry.psnr is not None]
    if scores:
        summary += f", mean PSNR {np.mean(scores):.2f} dB"
        if entries[0].input.shape == entries[0].target.shape:
            unchanged = np.mean([_psnr(entry.input, entry.target) for entry in entries])
            summary += f" (returning the input unchanged: {unchanged:.2f} dB)"
    figures = "\n".join(_figure(entry, header, row) for entry, row in zip(entries, rows, strict=True))
    page = PAGE.format(title=html.escape(shown(title)), summary=html.escape(summary), figures=figures)
    atomic.write(folder / "index.html", page)


def _caption(entry: Entry) -> str:
    return shown(entry.name) if entry.psnr is None else f"{shown(entry.name)}  {entry.psnr:.1f} dB"


def _figure(entry: Entry, header: list[str], row: list[np.ndarray]) -> str:
    name = html.escape(shown(entry.name))
    images = "".join(
        f'<div><img src="{_data_uri(frame)}" alt="{column} of {name}"><span>{column}</span></div>'
        for column, frame in zip(header, row, strict=True)
    )
    return f"<figure><div class=row>{images}</div><figcaption>{html.escape(_caption(entry))}</figcaption></figure>"


def _data_uri(frame_HWC: np.ndarray) -> str:
    picture = np.atleast_3d(np.asarray(as_picture(frame_HWC)))
    return f"data:image/png;base64,{base64.b64encode(encode_png(picture)).decode()}"


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; --line: color-mix(in srgb, currentColor 15%, transparent) }}
  body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem }}
  h1 {{ font-size: 1.3rem; margin: 0 }}
  main {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(25rem, 1fr)); margin-top: 1.5rem }}
  figure {{ margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: .5rem }}
  .row {{ display: flex; gap: .5rem; text-align: center; font-size: .8rem }}
  .row div {{ flex: 1 }}
  img {{ width: 100%; display: block; border-radius: .25rem }}
  figcaption {{ margin-top: .5rem; font-variant-numeric: tabular-nums }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<main>
{figures}
</main>
</html>
"""
