"""A page, a picture and a table of what was translated."""

from __future__ import annotations

import csv
import io
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from p2p.batch import from_frames, to_frames
from p2p.codecs.png import encode_png
from p2p.config.shown import shown
from p2p.data.halves import size_of
from p2p.data.images import read_input, read_pair
from p2p.data.pairs import Pair, Source
from p2p.data.reading import Reading
from p2p.data.transforms.letterbox import Letterbox
from p2p.data.transforms.sizing import in_levels, resize, to_size
from p2p.deploy.accuracy import psnr_db
from p2p.metrics.ssim import ssim
from p2p.report.page import address, publish
from p2p.report.picture import contact_sheet, spread
from p2p.report.thumbnails import LARGEST, longest_side, strip
from p2p.system import atomic
from p2p.system.cores import available_cores
from p2p.system.plural import counted

MOST = 1 << 25  # pixels of an image of any size that is shown
PICTURE_ROWS = 8  # of gallery.png; the page has them all
COLUMNS = ["input", "output", "target"]
THREADS = 4  # that read images, each of which may be as large as MOST
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Entry:
    """One translated image.

    Attributes:
        name: see `p2p.data.pairs.Pair`.
        input, output, target: uint8 frames (H, W, C) as the network sees them or, of outputs that were written at the
            sizes of their inputs, as the files show them; None where no target is known.
        scores: {"PSNR": dB, "SSIM": at most 1} where there is a target, of both as the network sees them.
        files: where input, output and target are, as far as they are files.
        unchanged: PSNR of the input in the output's place, where it has as many channels.
    """

    name: str
    input: np.ndarray
    output: np.ndarray
    target: np.ndarray | None = None
    scores: dict[str, float] = field(default_factory=dict)
    files: Sequence[Source] = ()
    unchanged: float | None = None

    @property
    def frames(self) -> list[np.ndarray]:
        """Those that there are, in the order of COLUMNS."""
        return [self.input, self.output] if self.target is None else [self.input, self.output, self.target]


def collect(
    pairs: list[Pair],
    outputs: list[Path],
    *,
    count: int,
    decode: Callable[..., np.ndarray],
    read_back: Callable[..., np.ndarray],
    eval: Callable[[np.ndarray], torch.Tensor],
    readings: tuple[Reading, Reading],
    restored: bool,
) -> Iterator[Entry]:
    """`count` of the images that were translated, evenly spread, read back from the files that were written.

    What cannot be read back, because it was deleted meanwhile, say, is left out, and said at the end.

    Args:
        pairs: what was translated.
        outputs: of each its output.
        decode: of a codec, the bytes of a file -> a frame.
        read_back: the bytes of an output -> uint8 (H, W, C).
        eval: of a transform, a frame -> float32 (C, H, W) in [-1, 1].
        readings: of inputs and of targets.
        restored: whether outputs were written at the sizes of their inputs.
    """

    def seen(frame_HWC: np.ndarray, reading: Reading) -> np.ndarray:
        image_CHW = eval(frame_HWC)
        if reading.labels is not None:
            return reading.planes(image_CHW.permute(1, 2, 0).numpy())
        return to_frames(image_CHW[None])[0].numpy()

    def entry(pair: Pair, path: Path) -> Entry:
        width, height = size_of(pair.input.path) or (0, 0)
        if restored and width * height > MOST:
            raise ValueError(f"it is {width}x{height} pixels, and a gallery reads images whole")
        output = read_back(path.read_bytes(), channels=readings[1].channels)
        if pair.target is None:
            frames: Sequence[np.ndarray] = [read_input(pair, decode, reading=readings[0])]
        else:
            frames = read_pair(pair, decode, input=readings[0], target=readings[1])
        images = [seen(*each) for each in zip(frames, readings, strict=False)]
        scored = to_size(output, *images[-1].shape[:2]) if restored else output  # what it was, up to the resize
        scores: dict[str, float] = {}
        unchanged = None
        if pair.target is not None:
            scores = scores_of(scored, images[1])
            if images[0].shape == images[1].shape:
                unchanged = psnr_db(*map(_image_NCHW, images)).item()
        if restored:
            images = [at_own_shape(*each) for each in zip(frames, readings, strict=False)]
            output = to_size(output, *images[0].shape[:2])
        files = [pair.input, Source(path), *([] if pair.target is None else [pair.target])]
        target = images[1] if pair.target is not None else None
        return Entry(pair.name, images[0], output, target, scores, files, unchanged)

    missing: dict[str, Exception] = {}
    chosen = spread(list(zip(pairs, outputs, strict=True)), count)
    for (pair, _), made in ahead(lambda each: entry(*each), chosen, threads=min(THREADS, available_cores())):
        try:
            yield made.result()
        except (ValueError, OSError) as error:  # noqa: PERF203 - beside reading a file it costs nothing
            missing[pair.name] = error
    if missing:
        name, first = next(iter(missing.items()))
        print(
            f"{counted(len(missing), 'image is', 'images are')} not in the gallery, such as {shown(f'{name}: {first}')}"
        )


def ahead(work: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[tuple[T, Future[R]]]:
    """Each item with what becomes of it, in order; only a few are begun, as all together may not fit into memory.

    Torch's operations have one thread each: on single images they take longer when several share them.
    """
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, "gallery", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            begun: deque[tuple[T, Future[R]]] = deque()
            for item in items:
                begun.append((item, pool.submit(work, item)))
                if len(begun) > threads:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
    finally:
        torch.set_num_threads(before)


def as_seen(letterbox: Letterbox) -> Callable[[np.ndarray], torch.Tensor]:
    """What `Transform.eval` is where fit=pad."""
    return lambda frame_HWC: from_frames(torch.from_numpy(np.array(letterbox(frame_HWC)))[None])[0]


def at_own_shape(frame_HWC: np.ndarray, reading: Reading) -> np.ndarray:
    """A frame of a file -> uint8 (H, W, C) with its proportions, no larger than the page shows it."""
    height, width, _ = frame_HWC.shape
    scale = min(1.0, LARGEST / max(height, width))
    sized_HWC = resize(frame_HWC, *(max(1, round(side * scale)) for side in (height, width)))
    levels_HWC = reading.planes(in_levels(sized_HWC, frame_HWC.dtype))
    return to_frames(from_frames(torch.from_numpy(np.array(levels_HWC))[None]))[0].numpy()


def scores_of(output: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """PSNR in dB and SSIM of two uint8 frames (H, W, C); those that are numbers, as SSIM is from 6 pixels on."""
    a, b = _image_NCHW(output), _image_NCHW(target)
    scores = {"PSNR": psnr_db(a, b).item(), "SSIM": ssim(a, b).item()}
    return {name: score for name, score in scores.items() if math.isfinite(score)}


def _image_NCHW(frame_HWC: np.ndarray) -> torch.Tensor:
    return from_frames(torch.from_numpy(frame_HWC.copy())[None])


def write(
    entries: Iterable[Entry],
    folder: Path,
    *,
    title: str,
    count: int,
    total: int,
    settings: dict[str, str] | None = None,
) -> Path | None:
    """Write `gallery.html` (and `index.html`), `gallery.png`, some of its rows as one picture, and `scores.csv`.

    Of images with many channels pages show the first three, see `p2p.report.picture.as_picture`.

    Args:
        entries: what to show. Each is needed for a moment: their frames together may not fit into memory.
        folder: where to; made if it is not there.
        title: heading of the page.
        count: of the entries, or more.
        total: how many images were translated, shown beside the number that is displayed.
        settings: what to say of the run.

    Returns:
        index.html; None where there was no entry.
    """
    count = min(count, total)
    images: list[dict[str, Any]] = []
    rows: list[list[np.ndarray]] = []
    captions, unchanged = [], []
    in_picture = {*spread(range(count), PICTURE_ROWS)}
    longest = longest_side(len(COLUMNS) * count)
    files: list[Sequence[Source]] = []
    for index, entry in enumerate(entries):
        images.append(_image(entry, folder, longest=longest))
        files.append(entry.files)
        if entry.unchanged is not None:
            unchanged.append(entry.unchanged)
        if index in in_picture:
            rows.append(entry.frames)
            captions.append(_caption(entry))
    if not images:
        return None
    columns = COLUMNS[: len(rows[0])]
    folder.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder)
    sheet = contact_sheet(rows, header=columns, captions=captions, across=2)
    atomic.write(folder / "gallery.png", encode_png(np.asarray(sheet)))
    _write_scores(folder / "scores.csv", images, files)
    summary = f"{len(images)} of {counted(total, 'image')}{_means([image['scores'] for image in images], unchanged)}"
    data = {"summary": summary, "columns": columns, "settings": settings or {}, "images": images}
    return publish("gallery", folder, title=title, data=data)


def _image(entry: Entry, folder: Path, *, longest: int) -> dict[str, Any]:
    """What the page knows of an image."""
    height, width = entry.output.shape[:2]
    files = [{"address": address(source.path, folder), "half": source.half} for source in entry.files]
    picture = strip(entry.frames, longest=longest)
    size = {"width": width, "height": height}
    return {"name": shown(entry.name), **size, "scores": entry.scores, "files": files, "picture": picture}


def _means(scores: list[dict[str, float]], unchanged: list[float]) -> str:
    """Half a sentence of the images' mean scores; "" where there are none."""
    psnr, similarity = ([each[name] for each in scores if name in each] for name in ("PSNR", "SSIM"))
    if not psnr:
        return ""
    base = f" (returning the input unchanged: {np.mean(unchanged):.2f} dB)" if unchanged else ""
    return f", mean PSNR {np.mean(psnr):.2f} dB{base}" + (f", SSIM {np.mean(similarity):.4f}" if similarity else "")


def _write_scores(path: Path, images: list[dict[str, Any]], files: list[Sequence[Source]]) -> None:
    """A row for each image: name, scores, and the paths of its files."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "PSNR", "SSIM", *COLUMNS])
    for image, sources in zip(images, files, strict=True):
        scores = [image["scores"].get(name, "") for name in ("PSNR", "SSIM")]
        paths = [source.path for source in sources]
        table.writerow([image["name"], *scores, *paths, *[""] * (len(COLUMNS) - len(paths))])
    atomic.write(path, text.getvalue().encode(errors="surrogateescape"))


def _caption(entry: Entry) -> str:
    return shown(entry.name) if not entry.scores else f"{shown(entry.name)}  {entry.scores['PSNR']:.1f} dB"
