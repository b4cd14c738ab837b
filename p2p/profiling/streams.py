"""When a GPU worked at a stage, by CUDA events: nothing waits while the images are on their way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from p2p.profiling.clock import Clock, Span

ANCHORS = 8  # the one that took the least time is the most exact: another process may have the GPU for milliseconds


class Pending(NamedTuple):
    """Work that was queued: its two events, which carry no time yet."""

    stage: str
    lane: str
    begin: torch.cuda.Event
    end: torch.cuda.Event
    images: int


class StreamClock:
    """Measures stages on CUDA streams for a clock of the host.

    `with stream_clock("generate", 32, lane="engine stream"):` records an event on the current stream before and
    after what the block queues there, and returns at once. An anchor, the best of some events that this object waits
    for when it is made, tells what the GPU's times are on the host's clock, to about 10 microseconds; after an hour to
    a quarter of a millisecond, by the digits of CUDA's float32. Lengths stay exact. Events that have come to pass are
    resolved and used again, so that memory does not grow; `finish` resolves the rest. For one thread.

    Not for a CUDA graph's capture: put the block around its replay.

    Args:
        clock: what the spans are added to.
        device: the streams' GPU; None for the current one.
    """

    def __init__(self, clock: Clock, *, device: torch.device | None = None):
        self._clock = clock
        self._pending: deque[Pending] = deque()
        self._free: list[torch.cuda.Event] = []
        torch.cuda.synchronize(device)  # or the anchor would wait behind earlier work
        _, self._anchor_ns, self._anchor = min((self._meet(device) for _ in range(ANCHORS)), key=lambda each: each[0])

    @staticmethod
    def _meet(device: torch.device | None) -> tuple[int, int, torch.cuda.Event]:
        """An event, the host's time when it came to pass, and by how many nanoseconds twice that may be wrong."""
        event = torch.cuda.Event(enable_timing=True)
        before = time.perf_counter_ns()
        event.record(torch.cuda.current_stream(device))
        event.synchronize()
        after = time.perf_counter_ns()
        return after - before, (before + after) // 2, event

    @contextmanager
    def __call__(self, stage: str, images: int = 1, *, lane: str) -> Iterator[None]:
        """Measure what the block queues on the current stream. If it raises, it counts for nothing."""
        begin, end = self._event(), self._event()
        begin.record()
        yield
        end.record()
        self._pending.append(Pending(stage, lane, begin, end, images))
        self._resolve()

    def finish(self) -> None:
        """Wait for everything that was measured, and count it."""
        for work in self._pending:
            work.end.synchronize()
        self._resolve()

    def between(
        self, stage: str, begin: torch.cuda.Event, end: torch.cuda.Event, images: int = 1, *, lane: str
    ) -> None:
        """Count the time between two events of the caller's, which have come to pass and measure time."""
        begin_ns = self._anchor_ns + round(1e6 * self._anchor.elapsed_time(begin))
        self._clock.add(Span(stage, lane, begin_ns, begin_ns + round(1e6 * begin.elapsed_time(end)), images))

    def _event(self) -> torch.cuda.Event:
        return self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)

    def _resolve(self) -> None:
        """Count what has ended. Streams overtake each other, so one that still works holds up no other."""
        waiting: deque[Pending] = deque()
        for work in self._pending:
            if not work.end.query():
                waiting.append(work)
                continue
            self.between(work.stage, work.begin, work.end, work.images, lane=work.lane)
            self._free += [work.begin, work.end]
        self._pending = waiting
