"""When a GPU worked at a stage, by CUDA events: nothing waits while the images are on their way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from p2p.profiling.clock import Clock, Span


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
    after what the block queues there, and returns at once. One anchor, an event that this object waits for when it
    is made, tells what the GPU's times are on the host's clock, to about 10 microseconds. Events that have come
    to pass are resolved and used again, so that memory does not grow; `finish` resolves the rest. For one thread.

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
        self._anchor = torch.cuda.Event(enable_timing=True)
        before = time.perf_counter_ns()
        self._anchor.record(torch.cuda.current_stream(device))
        self._anchor.synchronize()
        self._anchor_ns = (before + time.perf_counter_ns()) // 2

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

    def _event(self) -> torch.cuda.Event:
        return self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)

    def _resolve(self) -> None:
        """Count what has ended. Streams overtake each other, so one that still works holds up no other."""
        waiting: deque[Pending] = deque()
        for work in self._pending:
            if not work.end.query():
                waiting.append(work)
                continue
            begin, end = (self._anchor_ns + round(1e6 * self._anchor.elapsed_time(e)) for e in (work.begin, work.end))
            self._clock.add(Span(work.stage, work.lane, begin, end, work.images))
            self._free += [work.begin, work.end]
        self._pending = waiting
