"""The window of a timeline as a picture."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from p2p.profiling.clock import COLOURS
from p2p.report.lanes import Bar, Timeline
from p2p.system.plural import counted

WIDTH, LANE, GAP = 1600, 28, 6  # pixels
RIGHT, TOP, BOTTOM = 70, 84, 44  # around the lanes; the left margin fits their names
INK, FAINT, PAPER, TRACK = "#222222", "#777777", "white", "#f3f3f3"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(timeline: Timeline) -> Image.Image:
    """The bars of `timeline.window_ns`, a lane a line, with each lane's busy share on the right.

    A bar starts and ends at the pixel nearest to its time and is a pixel wide at least. Where a stage's name or its
    batch fits, it stands in the bar.
    """
    begin, end = timeline.window_ns
    lanes = {name: visible(bars, begin, end) for name, bars in timeline.lanes.items()}
    lanes = {name: bars for name, bars in lanes.items() if any(bar.batch is not None for bar in bars)}
    font, small = ImageFont.load_default(size=15), ImageFont.load_default(size=12)
    left = 30 + math.ceil(max(font.getlength(name) for name in lanes))
    size = (WIDTH, TOP + len(lanes) * (LANE + GAP) + BOTTOM)
    image = Image.new("RGB", size, PAPER)
    canvas = ImageDraw.Draw(image)
    scale = (WIDTH - RIGHT - left) / (end - begin)

    def x(time_ns: int) -> int:
        return left + round((time_ns - begin) * scale)

    shown = {bar.batch for bars in lanes.values() for bar in bars if bar.stage == "generate"}
    title = f"{(end - begin) / 1e6:,.1f} ms of {(timeline.end_ns - timeline.begin_ns) / 1e9:.2f} s"
    if shown:
        title = f"{counted(len(shown), 'batch', 'batches')} of {timeline.batch_size}, {title}"
    canvas.text((left, 12), title, INK, ImageFont.load_default(size=18))
    stages = {bar.stage for bars in lanes.values() for bar in bars}
    across = left
    for stage in (stage for stage in COLOURS if stage in stages):
        canvas.rectangle((across, 46, across + 13, 59), colour(stage))
        canvas.text((across + 20, 53), stage, INK, font, anchor="lm")
        across += 48 + math.ceil(font.getlength(stage))
    canvas.text((WIDTH - 8, 53), "busy", FAINT, font, anchor="rm")

    bottom = size[1] - BOTTOM
    for tick, label in ticks(end - begin):
        canvas.line((x(begin + tick), TOP - 4, x(begin + tick), bottom + 4), "#dddddd")
        canvas.text((x(begin + tick), bottom + 8), label, FAINT, small, anchor="ma")
    for index, (name, bars) in enumerate(lanes.items()):
        top = TOP + index * (LANE + GAP)
        canvas.rectangle((left, top, WIDTH - RIGHT, top + LANE - 1), TRACK)
        canvas.text((left - 10, top + LANE / 2), name, INK, font, anchor="rm")
        for bar in bars:
            _bar(canvas, bar, x(max(bar.begin_ns, begin)), x(min(bar.end_ns, end)), top, small)
        busy = sum(min(bar.end_ns, end) - max(bar.begin_ns, begin) for bar in bars) / (end - begin)
        canvas.text((WIDTH - 8, top + LANE / 2), f"{busy:.0%}", INK, font, anchor="rm")
    return image


def _bar(canvas: ImageDraw.ImageDraw, bar: Bar, first: int, after: int, top: int, font: Font) -> None:
    wide = after - first > 4  # leaves a gap behind it
    canvas.rectangle((first, top, max(first, after - 1 - wide), top + LANE - 1), colour(bar.stage))
    for text in (f"{bar.stage} {bar.batch}", f"{bar.batch}"):
        if bar.batch is not None and font.getlength(text) + 8 <= after - first:
            where = ((first + after - wide) / 2, top + LANE / 2)
            canvas.text(where, text, ink(bar.stage), font, anchor="mm")
            return


def visible(bars: list[Bar], begin_ns: int, end_ns: int) -> list[Bar]:
    """Those of which a part lies in the window."""
    return [bar for bar in bars if bar.end_ns > begin_ns and bar.begin_ns < end_ns]


def colour(stage: str) -> str:
    """The stage's colour as "#rrggbb"."""
    return f"#{COLOURS[stage]:06x}"


def ink(stage: str) -> str:
    """Black or white, whichever can be read on the stage's colour (luma of Rec. 601)."""
    red, green, blue = COLOURS[stage].to_bytes(3, "big")
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def ticks(length_ns: int) -> list[tuple[int, str]]:
    """Round times from 0 to `length_ns`, 4 to 10 of them behind 0: nanoseconds and labels in milliseconds."""
    rough = length_ns / 10
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    digits = max(0, 6 - math.floor(math.log10(step)))
    times = [round(index * step) for index in range(math.floor(length_ns / step) + 1)]
    return [(time, f"{time / 1e6:.{digits}f} ms") for time in times]
