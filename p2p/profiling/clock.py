"""How long each stage worked and when, and the same as NVTX ranges for Nsight Systems."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import nvtx

# Colours of the ranges in Nsight Systems and of the timeline: stable, so that two can be compared at a glance.
COLOURS = {
    "init": 0x7F7F7F,
    "warmup": 0xBCBD22,
    "decode": 0x1F77B4,
    "preprocess": 0x17BECF,
    "generate": 0x2CA02C,
    "encode": 0xFF7F0E,
    "write": 0xD62728,
    "e2e": 0x9467BD,
}
WORK = ("decode", "preprocess", "generate", "encode", "write")  # what an image goes through

KEPT = 100_000  # spans, about 25 MB: a run of any length keeps its last ones, and memory does not grow


class Span(NamedTuple):
    """One stretch of work.

    Attributes:
        stage: a key of COLOURS.
        lane: who worked: a thread, a process or a stream, as in "main", "worker 3", "engine stream".
        begin_ns, end_ns: of time.perf_counter_ns, which on Linux is one clock for all processes of a machine.
        images: how many it was about.
    """

    stage: str
    lane: str
    begin_ns: int
    end_ns: int
    images: int = 1


class Measured(NamedTuple):
    """What a clock of another process has measured; see `Clock` for what is what.

    Attributes:
        extent: by stage, when it first began and last ended.
    """

    images: dict[str, int]
    lanes: dict[str, dict[str, float]]
    extent: dict[str, tuple[int, int]]
    spans: list[Span] | None
    cpu_seconds: float


class Clock:
    """Adds up, over all threads, the seconds and images of each stage; keeps single spans where asked to.

    `with clock("decode"):` measures the time on this host, about two microseconds in overhead; whoever measures a
    GPU waits for it inside, or takes `p2p.profiling.streams`. It is an NVTX range too, which costs nothing where
    no profiler listens: the nvtx package then hands out a domain that does nothing.

    Lanes are named after threads. A worker process measures by itself (`p2p.pipelines.worker.Spans`); `merge`
    takes in its spans, for a timeline each of them, else one for each stage that is as long as all.
    This module imports no torch.

    Attributes:
        seconds, images: by stage, added up over its lanes.
        lanes: by stage, the seconds of each lane that has worked at it.
        spans: what was kept, or None.
        cpu_seconds: processor time within "e2e", of this process and of its children that ended there; a pipeline adds
            that of its workers.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.images: dict[str, int] = defaultdict(int)
        self.lanes: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.spans: deque[Span] | None = None
        self.cpu_seconds = 0.0
        self._extent: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._domain = nvtx.get_domain("p2p")
        self._ranges = {
            stage: self._domain.get_event_attributes(message=stage, color=colour) for stage, colour in COLOURS.items()
        }

    def keep_spans(self, most: int = KEPT) -> None:
        """From now on keep the last `most` spans."""
        self.spans = deque(self.spans or (), maxlen=most)

    @contextmanager
    def __call__(self, stage: str, images: int = 1, *, lane: str | None = None) -> Iterator[None]:
        """Measure the block as `stage`, at work on so many images; None: the lane is this thread's."""
        self._domain.push_range(self._ranges[stage])
        cpu = _cpu_seconds() if stage == "e2e" else 0.0
        begin = time.perf_counter_ns()
        try:
            yield
        finally:
            end = time.perf_counter_ns()
            self._domain.pop_range()
            with self._lock:
                self._add(stage, lane or _thread(), begin, end, images)
            if stage == "e2e":
                self.cpu_seconds += _cpu_seconds() - cpu

    def add(self, span: Span) -> None:
        """Count one span, measured elsewhere."""
        with self._lock:
            self._add(*span)

    def merge(self, spans: Iterable[tuple[str, str, int, int, int]]) -> None:
        """Count what another process has measured: plain tuples in the order of `Span`."""
        with self._lock:
            for span in spans:
                self._add(*span)

    def measured(self) -> Measured:
        """All of it, to be sent to another process's clock."""
        with self._lock:
            lanes = {stage: dict(seconds) for stage, seconds in self.lanes.items()}
            spans = None if self.spans is None else [*self.spans]
            return Measured(dict(self.images), lanes, dict(self._extent), spans, self.cpu_seconds)

    def join(self, parts: dict[str, Measured], *, images: int) -> None:
        """Take in what several processes have measured that did one thing together, by the names of their devices.

        Work is added up; "init", "warmup" and "e2e" last from the first one's begin to the last one's end.

        Args:
            images: that "e2e" was about.
        """
        with self._lock:
            for device, part in parts.items():
                for stage, lanes in part.lanes.items():
                    if stage in WORK:
                        self.images[stage] += part.images[stage]
                        self.seconds[stage] += sum(lanes.values())
                        self.lanes[stage] |= {f"{lane} of {device}": seconds for lane, seconds in lanes.items()}
                        continue
                    ends = [part.extent[stage], *filter(None, [self._extent.get(stage)])]
                    begin, end = self._extent[stage] = min(each[0] for each in ends), max(each[1] for each in ends)
                    self.seconds[stage] = (end - begin) / 1e9
                    self.images[stage] = images if stage == "e2e" else 1
                if self.spans is not None and part.spans:
                    self.spans.extend(span._replace(lane=f"{span.lane} of {device}") for span in part.spans)
                self.cpu_seconds += part.cpu_seconds

    def _add(self, stage: str, lane: str, begin_ns: int, end_ns: int, images: int) -> None:
        seconds = (end_ns - begin_ns) / 1e9
        self.seconds[stage] += seconds
        self.images[stage] += images
        self.lanes[stage][lane] += seconds
        first, last = self._extent.get(stage, (begin_ns, end_ns))
        self._extent[stage] = min(first, begin_ns), max(last, end_ns)
        if self.spans is not None:
            self.spans.append(Span(stage, lane, begin_ns, end_ns, images))


def _thread() -> str:
    name = threading.current_thread().name
    return "main" if name == "MainThread" else name.replace("_", " ")


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended, user and system."""
    return sum(os.times()[:4])
