"""What the clock keeps of single spans: of threads, of worker processes, of streams."""

import pickle
import subprocess
import sys
import threading
import time

import pytest
import torch

from p2p.profiling.clock import Clock, Span
from p2p.profiling.streams import ANCHORS, StreamClock

WORKER = """
import pickle, sys, time
from p2p.pipelines.worker import Spans
assert "torch" not in sys.modules, "a worker would wait for it"
clock = Spans("decode 3")
with clock("decode", images=4):
    time.sleep(0.01)
with clock("preprocess", images=4):
    pass
sys.stdout.buffer.write(pickle.dumps(clock.take()))
assert clock.take() == []
"""


def test_nothing_is_kept_unless_asked_for():
    clock = Clock()
    with clock("decode"):
        pass
    assert clock.spans is None


def test_spans_name_who_worked_when():
    clock = Clock()
    clock.keep_spans()
    before = time.perf_counter_ns()
    with clock("generate", 8):
        inner = threading.Thread(target=work, args=(clock, "decode"), name="reader_0")
        inner.start()
        inner.join()
    after = time.perf_counter_ns()
    decode, generate = clock.spans
    assert (decode.stage, decode.lane, decode.images) == ("decode", "reader 0", 1)
    assert (generate.stage, generate.lane, generate.images) == ("generate", "main", 8)
    assert before <= generate.begin_ns <= decode.begin_ns <= decode.end_ns <= generate.end_ns <= after
    assert {stage: list(lanes) for stage, lanes in clock.lanes.items()} == {
        "decode": ["reader 0"],
        "generate": ["main"],
    }
    assert clock.lanes["decode"]["reader 0"] == clock.seconds["decode"]


def work(clock, stage):
    with clock(stage):
        pass


def test_a_worker_process_sends_its_spans_and_the_clocks_agree():
    before = time.perf_counter_ns()
    done = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, check=True)
    after = time.perf_counter_ns()
    spans = pickle.loads(done.stdout)
    assert [type(span) for span in spans] == [tuple, tuple]
    clock = Clock()
    clock.merge(spans)  # sums alone
    assert clock.spans is None
    clock.keep_spans()
    clock.merge(spans)
    assert [span.stage for span in clock.spans] == ["decode", "preprocess"]
    assert clock.images == {"decode": 8, "preprocess": 8}
    assert list(clock.lanes["decode"]) == ["decode 3"]
    span = clock.spans[0]
    assert before < span.begin_ns < span.end_ns < after
    assert clock.seconds["decode"] == pytest.approx(2e-9 * (span.end_ns - span.begin_ns)) and span.end_ns > 1e7


def test_memory_does_not_grow_the_last_spans_stay_and_sums_count_all():
    clock = Clock()
    clock.keep_spans(10)
    for number in range(25):
        clock.add(Span("write", "writer 0", number, number + 1, 1))
    assert [span.begin_ns for span in clock.spans] == list(range(15, 25))
    assert clock.images["write"] == 25


def test_processor_time_is_taken_end_to_end():
    clock = Clock()
    cpu = time.process_time()
    with clock("e2e"):
        while time.process_time() - cpu < 0.1:  # work
            pass
        time.sleep(0.1)  # none
    assert 0.08 <= clock.cpu_seconds <= 0.15 + 0.02  # os.times counts in hundredths


class FakeGpu:
    """Events on a device whose clock starts at 500 ms and which is done when the test says so."""

    def __init__(self, monkeypatch):
        self.now_ms, self.reached_ms, self.made, self.waits = 500.0, 500.0, 0, 0
        gpu = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing
                gpu.made += 1

            def record(self, stream=None):
                self.ms = gpu.now_ms

            def query(self):
                return self.ms <= gpu.reached_ms

            def synchronize(self):
                gpu.waits += 1
                gpu.reached_ms = max(gpu.reached_ms, self.ms)

            def elapsed_time(self, other):
                assert self.query() and other.query()
                return other.ms - self.ms

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)


def test_streams_are_measured_by_events_without_waiting(monkeypatch):
    gpu, clock = FakeGpu(monkeypatch), Clock()
    clock.keep_spans()
    before = time.perf_counter_ns()
    streams = StreamClock(clock)
    after = time.perf_counter_ns()
    assert gpu.waits == ANCHORS
    for start, stop in ((510, 520), (520, 535)):
        gpu.now_ms = start
        with streams("generate", 32, lane="engine stream"):
            gpu.now_ms = stop
    assert not clock.spans and gpu.waits == ANCHORS  # queued, none is done
    gpu.reached_ms = 520
    gpu.now_ms = 540
    with streams("encode", 32, lane="engine stream"):
        gpu.now_ms = 541
    assert [(span.stage, span.images, span.lane) for span in clock.spans] == [("generate", 32, "engine stream")]
    assert gpu.waits == ANCHORS
    streams.finish()
    lengths = [(span.stage, (span.end_ns - span.begin_ns) / 1e6) for span in clock.spans]
    assert lengths == [("generate", 10), ("generate", 15), ("encode", 1)]
    assert before + 10e6 <= clock.spans[0].begin_ns <= after + 10e6


def test_the_clocks_meet_where_the_gpu_answered_soonest(monkeypatch):
    """Another process has the GPU for 1 ms while the events come to pass that are not the fourth."""
    gpu = FakeGpu(monkeypatch)
    host_ns, soonest = 0, 4

    def perf_counter_ns():
        nonlocal host_ns
        host_ns += 1000 if gpu.made == soonest else 1_000_000
        gpu.now_ms = host_ns / 1e6
        return host_ns

    monkeypatch.setattr(time, "perf_counter_ns", perf_counter_ns)
    clock = Clock()
    clock.keep_spans()
    streams = StreamClock(clock)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.ms, end.ms = 6.0, gpu.reached_ms
    streams.between("generate", begin, end, lane="engine stream")
    assert abs(clock.spans[0].begin_ns - 6e6) <= 1000


def test_a_callers_own_events_can_be_counted(monkeypatch):
    gpu, clock = FakeGpu(monkeypatch), Clock()
    clock.keep_spans()
    streams = StreamClock(clock)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.ms, end.ms, gpu.reached_ms = 600.0, 640.0, 640.0
    streams.between("generate", begin, end, 32, lane="engine stream")
    (span,) = clock.spans
    assert (span.stage, span.lane, span.images, span.end_ns - span.begin_ns) == ("generate", "engine stream", 32, 40e6)


def test_events_are_used_again_and_a_slow_stream_holds_up_no_other(monkeypatch):
    gpu, clock = FakeGpu(monkeypatch), Clock()
    streams = StreamClock(clock)
    with streams("decode", lane="decoder"):
        gpu.now_ms = 1e9
    for number in range(100):
        gpu.now_ms = gpu.reached_ms = 1000.0 + number
        with streams("generate", lane="engine stream"):
            pass
    assert clock.images == {"generate": 100}
    assert gpu.made <= ANCHORS + 2 + 2
    with pytest.raises(KeyError), streams("generate", lane="engine stream"):
        raise KeyError
    streams.finish()
    assert clock.images == {"generate": 100, "decode": 1}
