"""Who worked when: the spans of a run as lanes of bars, in three files.

`timeline.json` opens in Perfetto and chrome://tracing, `timeline.html` in any browser, `timeline.png` anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from p2p.profiling.clock import WORK, Clock, Span
from p2p.report import timeline_page, timeline_picture
from p2p.system import atomic

WHOLE = "run"  # the lane of init, warmup and e2e, which contain or precede all others


class Bar(NamedTuple):
    """A span in its lane. `batch` counts from 0, by the order in which a stage began; None outside of batches."""

    stage: str
    begin_ns: int
    end_ns: int
    images: int
    batch: int | None


@dataclass
class Timeline:
    """What the files show.

    Attributes:
        lanes: by name, from top to bottom; the bars of a lane follow each other and do not overlap.
        begin_ns, end_ns: of all bars.
        window_ns: begin and end of the part that is worth looking at first.
        batch_size: images of the largest batch.
    """

    lanes: dict[str, list[Bar]]
    begin_ns: int
    end_ns: int
    window_ns: tuple[int, int]
    batch_size: int


@contextmanager
def record(clock: Clock, *, folder: str | Path, batches: int = 12) -> Iterator[None]:
    """Keep the clock's spans while the block runs, and write the three files at its end, whatever ended it.

    Args:
        folder: where to; made if it is not there.
        batches: how many are shown, of the middle of the run; the page can be moved to all others.

    Raises:
        ValueError: `batches` is none.
    """
    if batches < 1:
        raise ValueError(f"profile.batches={batches} shows nothing: use 1 or more")
    clock.keep_spans()
    try:
        yield
    finally:
        if any(span.stage in WORK for span in clock.spans):
            write(arrange(clock.spans, clock, batches=batches), Path(folder))
            print(f"look at {Path(folder, 'timeline.html')} or {Path(folder, 'timeline.png')}")


def arrange(spans: Iterable[Span], clock: Clock, *, batches: int) -> Timeline:
    """Sort spans into lanes, readers first, and choose the window.

    Spans that overlap within a lane, as on a GPU that works at several batches, go on to a second one, "... (2)".
    """
    spans = sorted(spans, key=lambda span: (span.begin_ns, span.end_ns))
    generate = [span for span in spans if span.stage == "generate"]
    batch_size = max((span.images for span in generate), default=1)
    # Where the first spans were dropped, the first one kept is of a later batch.
    seen = {stage: clock.images[stage] - sum(s.images for s in spans if s.stage == stage) for stage in WORK}
    lanes: dict[str, list[Bar]] = {}
    for span in spans:
        batch = None
        if span.stage in WORK:
            batch = seen[span.stage] // batch_size
            seen[span.stage] += span.images
        lane = _free_lane(lanes, span.lane if span.stage in WORK else WHOLE, span.begin_ns)
        lanes.setdefault(lane, []).append(Bar(span.stage, span.begin_ns, span.end_ns, span.images, batch))
    begin, end = spans[0].begin_ns, max(span.end_ns for span in spans)
    order = sorted(lanes, key=lambda lane: _place(lane, lanes[lane]))
    return Timeline({lane: lanes[lane] for lane in order}, begin, end, _window(spans, generate, batches), batch_size)


def _free_lane(lanes: dict[str, list[Bar]], name: str, begin_ns: int) -> str:
    lane, number = name, 1
    while lane in lanes and lanes[lane][-1].end_ns > begin_ns:
        number += 1
        lane = f"{name} ({number})"
    return lane


def _place(lane: str, bars: list[Bar]) -> tuple:
    """By the first stage that the lane works at, then "decode 2" before "decode 10"."""
    first = min((WORK.index(bar.stage) for bar in bars if bar.stage in WORK), default=-1)
    return first, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", lane)]


def _window(spans: list[Span], generate: list[Span], batches: int) -> tuple[int, int]:
    if len(generate) > batches:
        first = (len(generate) - batches) // 2
        return generate[first].begin_ns, max(span.end_ns for span in generate[first : first + batches])
    work = [span for span in spans if span.stage in WORK]
    return work[0].begin_ns, max(span.end_ns for span in work)


def write(timeline: Timeline, folder: Path) -> None:
    """Write timeline.json, timeline.html and timeline.png."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder)
    atomic.write(folder / "timeline.json", json.dumps(trace(timeline)))
    atomic.write(folder / "timeline.html", timeline_page.page(timeline))
    with atomic.replacing(folder / "timeline.png") as partial:
        timeline_picture.draw(timeline).save(partial, "PNG")


def trace(timeline: Timeline) -> dict:
    """The timeline as a Chrome trace: complete events ("X") in microseconds, and the lanes' names as metadata ("M").

    Source: the document "Trace Event Format" of the Chromium project.
    """
    events = [{"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "p2p"}}]
    for tid, (lane, bars) in enumerate(timeline.lanes.items(), start=1):
        events.append({"name": "thread_name", "ph": "M", "pid": 1, "tid": tid, "args": {"name": lane}})
        events.append({"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": tid, "args": {"sort_index": tid}})
        for bar in bars:
            arguments = {"images": bar.images} | ({} if bar.batch is None else {"batch": bar.batch})
            times = {"ts": (bar.begin_ns - timeline.begin_ns) / 1e3, "dur": (bar.end_ns - bar.begin_ns) / 1e3}
            events.append({"name": bar.stage, "cat": "p2p", "ph": "X", "pid": 1, "tid": tid} | times)
            events[-1]["args"] = arguments
    return {"traceEvents": events, "displayTimeUnit": "ms"}
