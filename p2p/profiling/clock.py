"""How long each stage worked, and the same as NVTX ranges for Nsight Systems."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import nvtx

# Colours of the ranges in Nsight Systems: stable, so that two profiles can be compared at a glance.
COLOURS = {
    "init": 0x7F7F7F,
    "warmup": 0xBCBD22,
    "decode": 0x1F77B4,
    "preprocess": 0x17BECF,
    "generate": 0x2CA02C,
    "postprocess": 0x98DF8A,
    "encode": 0xFF7F0E,
    "write": 0xD62728,
    "e2e": 0x9467BD,
}


class Clock:
    """Adds up, over all threads, the seconds and images of each stage.

    `with clock("decode"):` measures the time on this host, about a microsecond in overhead; whoever measures
    a GPU waits for it inside. It is an NVTX range too, which costs nothing where no profiler listens: the nvtx
    package then hands out a domain that does nothing.
    """

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.images: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._domain = nvtx.get_domain("p2p")
        self._ranges = {
            stage: self._domain.get_event_attributes(message=stage, color=colour) for stage, colour in COLOURS.items()
        }

    @contextmanager
    def __call__(self, stage: str, images: int = 1) -> Iterator[None]:
        """Measure the block as `stage`, at work on so many images."""
        self._domain.push_range(self._ranges[stage])
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._domain.pop_range()
            self.add(stage, seconds, images=images)

    def add(self, stage: str, seconds: float, *, images: int) -> None:
        """Count what was measured elsewhere: in a worker process, or by a GPU's events."""
        with self._lock:
            self.seconds[stage] += seconds
            self.images[stage] += images
