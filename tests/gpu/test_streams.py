"""Spans of CUDA streams, on the clock of the host."""

import time

import pytest
import torch

from p2p.profiling.clock import Clock
from p2p.profiling.streams import StreamClock

pytestmark = pytest.mark.gpu

MS = 1_000_000


def test_a_span_is_where_the_work_was_and_nothing_waits_for_it():
    clock = Clock()
    clock.keep_spans()
    streams, side = StreamClock(clock), torch.cuda.Stream()
    torch.cuda._sleep(1000)  # loads the kernel
    torch.cuda.synchronize()
    before = time.perf_counter_ns()
    with torch.cuda.stream(side), streams("generate", 4, lane="engine stream"):
        torch.cuda._sleep(200_000_000)  # cycles: about 100 ms
    queued = time.perf_counter_ns()
    assert not clock.spans and queued - before < 20 * MS
    streams.finish()
    after = time.perf_counter_ns()
    (span,) = clock.spans
    assert (span.stage, span.lane, span.images) == ("generate", "engine stream", 4)
    # It may begin later than it was queued, where another process has the GPU.
    assert before - MS < span.begin_ns < span.end_ns - 20 * MS
    assert after - 10 * MS < span.end_ns < after + MS


def test_two_streams_that_work_at_once_are_seen_to_overlap():
    clock = Clock()
    clock.keep_spans()
    streams = StreamClock(clock)
    for lane in ("decoder", "engine stream"):
        with torch.cuda.stream(torch.cuda.Stream()), streams("generate", lane=lane):
            torch.cuda._sleep(200_000_000)
    streams.finish()
    one, other = sorted(clock.spans, key=lambda span: span.lane)
    assert min(one.end_ns, other.end_ns) - max(one.begin_ns, other.begin_ns) > 20 * MS
