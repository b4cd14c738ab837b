"""The spans of a run, sorted into lanes of bars: what a timeline shows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from p2p.profiling.clock import WORK, Clock, Span

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
    """What the files of a timeline show.

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


def arrange(spans: Iterable[Span], clock: Clock, *, batches: int) -> Timeline:
    """Sort spans into lanes, those that load first, and choose the window.

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
    """By the first stage that the lane works at, then "worker 2" before "worker 10"."""
    first = min((WORK.index(bar.stage) for bar in bars if bar.stage in WORK), default=-1)
    return first, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", lane)]


def _window(spans: list[Span], generate: list[Span], batches: int) -> tuple[int, int]:
    if len(generate) > batches:
        first = (len(generate) - batches) // 2
        return generate[first].begin_ns, max(span.end_ns for span in generate[first : first + batches])
    work = [span for span in spans if span.stage in WORK]
    return work[0].begin_ns, max(span.end_ns for span in work)
