"""When each worker worked, in two files: `timeline.png`, and `timeline.json` for Perfetto and chrome://tracing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2p.profiling.clock import WORK, Clock
from p2p.report.lanes import Timeline, arrange
from p2p.report.timeline_picture import draw
from p2p.system import atomic


@contextmanager
def profile(clock: Clock, *, folder: str | Path, batches: int = 12) -> Iterator[None]:
    """Keep the clock's spans while the block runs, and write both files at its end, whatever ended it.

    Args:
        folder: where to; made if it is not there.
        batches: how many the picture shows, of the middle of the run; the other file has all.

    Raises:
        ValueError: `batches` is below 1.
    """
    if batches < 1:
        raise ValueError(f"profile.batches={batches} is too small: use 1 or more")
    clock.keep_spans()
    try:
        yield
    finally:
        spans = clock.spans or ()
        if any(span.stage in WORK for span in spans):
            folder = Path(folder)
            write(arrange(spans, clock, batches=batches), folder)
            print(f"look at {folder / 'timeline.png'}, or open {folder / 'timeline.json'} in ui.perfetto.dev")


def write(timeline: Timeline, folder: Path) -> None:
    """Write timeline.json and timeline.png."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder)
    atomic.write(folder / "timeline.json", json.dumps(trace(timeline)))
    with atomic.replacing(folder / "timeline.png") as partial:
        draw(timeline).save(partial, "PNG")


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
