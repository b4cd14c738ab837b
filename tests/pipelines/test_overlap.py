"""The overlapped pipeline: that it overlaps, in bounds, and with whom; its bytes: test_pipelines.py."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2p.codecs.pillow import Pillow
from p2p.data.pairs import Pair, Source
from p2p.data.reading import RGB
from p2p.pipelines import overlap, sequential, workers
from p2p.pipelines.messages import LOAD, SAVE
from p2p.pipelines.outcome import KEPT
from p2p.pipelines.processes import early
from p2p.pipelines.workers import Workers
from tests.pipelines.codecs import Codec
from tests.pipelines.conftest import Negative, children, files, stages_for


def test_a_batch_may_be_large_and_fail_at_length(tmp_path):
    """The reasons of 2,000 images that are not there are more than a pipe holds."""
    stages = stages_for(Negative(), tmp_path / "out", image_size=16)
    pairs = [Pair(f"{index:04d}", Source(tmp_path / "not-there" / f"{index:04d}.png")) for index in range(2100)]
    found = []
    stages.on_failure = lambda pair, stage, reason: found.append((pair.name, stage, reason))
    overlap.run(pairs, stages, batch_size=2000, workers=1)
    assert list(stages.failures) == [pair.name for pair in pairs] == [name for name, _, _ in found]
    assert all(stage == "decode" and f"{name}.png: No such file" in reason for name, stage, reason in found)
    assert list(filter(None, stages.failures.values())) == [reason for _, _, reason in found[:KEPT]]


def test_a_slow_disk_slows_the_reader(many, tmp_path, monkeypatch):
    """However slow the writers are, no more images are on their way than the slots hold, nor more tasks in the pipe.

    A full one would make this process wait for workers, which wait for it once the pipe of answers is full, too.
    """
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "slow", at=None), image_size=16)
    ahead, done, submit, hand_out = [0], [], Workers.submit, Workers.hand_out

    def counted(self, task):
        if task.kind == LOAD:
            ahead.append(ahead[-1] + task.count)
            assert ahead[-1] - len(done) <= 2 * 20 * 3  # two rings of twenty batches of three
        submit(self, task)

    def bounded(self):
        hand_out(self)
        assert self.handed_out <= 2 * 2  # for each of two workers one in hand and one next

    monkeypatch.setattr(Workers, "submit", counted)
    monkeypatch.setattr(Workers, "hand_out", bounded)
    stages.on_image = lambda: done.append(1)
    overlap.run(many(150), stages, batch_size=3, slots=20, workers=2)
    assert max(ahead) == len(done) == len(files(tmp_path / "out")) == 150


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_worker_keeps_the_memory_that_an_image_frees(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "reuse memory"), image_size=16)
    overlap.run(many(4), stages, batch_size=4, workers=1)
    assert len(files(tmp_path / "out")) == 4


def test_overlap_really_overlaps(many, tmp_path, monkeypatch):
    """While the engine translates, a worker is seen to load and another one to save."""
    engine_spans, spans, answers = [], [], Workers.answers

    class Slow(Negative):
        def frames(self, frames_NHWC):
            begin = time.perf_counter_ns()
            time.sleep(0.04)
            engine_spans.append((begin, time.perf_counter_ns()))
            return 255 - frames_NHWC

    def watched(self, **options):
        for task, note in answers(self, **options):
            spans.extend((task.kind, stage, begin, end) for stage, _, begin, end, _ in note.spans)
            yield task, note

    monkeypatch.setattr(Workers, "answers", watched)
    stages = stages_for(Slow(), tmp_path / "out", image_size=16)
    stages.clock.keep_spans()  # or they come added up
    overlap.run(many(60), stages, batch_size=3, workers=2)
    for kind, stage in ((LOAD, "decode"), (SAVE, "encode")):
        inside = [
            1
            for found, name, begin, end in spans
            if (found, name) == (kind, stage) and any(a < begin and end < b for a, b in engine_spans)
        ]
        assert len(inside) > 10


@pytest.mark.parametrize("each_span", [False, True])
def test_the_time_that_workers_work_is_counted(many, tmp_path, each_span):
    """Of 66 images, each 5 ms of a processor's time, also of a last batch that is not full."""
    stages = stages_for(Negative(), tmp_path / "out", image_size=16, codec=Codec("encode", "work", at=None))
    if each_span:
        stages.clock.keep_spans()
    overlap.run(many(66), stages, batch_size=4, workers=2)
    clock = stages.clock
    assert clock.images["encode"] == clock.images["decode"] == 66
    assert 66 * 0.005 <= clock.seconds["encode"] <= 2 * clock.seconds["e2e"]
    assert clock.cpu_seconds >= 66 * 0.005
    assert set(clock.lanes["encode"]) <= {"worker 0", "worker 1"}
    if each_span:
        assert sum(span.stage == "encode" for span in clock.spans) == 66


def rss_kb():
    """Memory of this process and its workers, once what they share, in KB."""
    total = 0
    for pid in (os.getpid(), *children(os.getpid())):
        kinds = ("RssAnon", "RssShmem") if pid == os.getpid() else ("RssAnon",)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            total += int(line.split()[1]) if line.startswith(kinds) else 0
    return total


def test_memory_does_not_grow_with_the_number_of_images(many, tmp_path):
    samples = []
    stages = stages_for(Negative(), tmp_path / "out", codec=Pillow(format="npy"), image_size=16)
    stages.on_image = lambda: samples.append(rss_kb() if len(samples) % 20 == 0 else 0)
    overlap.run(many(3000), stages, batch_size=8, slots=2, workers=2)
    first, last = max(samples[375:750]), max(samples[-750:])
    assert first > 10_000  # a NumPy in each worker
    assert last - first < 500  # 2250 images of 768 bytes and their names would be 2 MB


def test_no_more_workers_than_tasks(many, tmp_path, monkeypatch):
    counts, init = [], Workers.__init__

    def counted(self, count, **options):
        counts.append(count)
        init(self, 1, **options)

    monkeypatch.setattr(Workers, "__init__", counted)
    monkeypatch.setattr(workers, "available_cores", lambda: 16)
    for count, batch_size in ((9, 8), (9, 1), (90, 8)):
        overlap.run(many(count), stages_for(Negative(), tmp_path / "out", image_size=16), batch_size=batch_size)
    assert counts == [3, 9, 16]  # of 4 images, of 1, and one for each core


def test_workers_that_were_started_early_do_the_work_and_the_others_are_ended(many, tmp_path):
    before = children(os.getpid())
    pairs, seen = many(9), []
    stages = stages_for(Negative(), tmp_path / "out", image_size=16)
    stages.on_image = lambda: seen.append(children(os.getpid()) - before)
    with early() as start:
        start(3)
        started = children(os.getpid()) - before
        overlap.run(pairs, stages, batch_size=4, workers=2)
        assert len(started) == 3
        assert all(workers <= started and len(workers) == 3 for workers in seen) and len(seen) == 9
        assert len(children(os.getpid()) - before) == 1
    assert children(os.getpid()) == before
    assert len(files(tmp_path / "out")) == 9
    with pytest.raises(KeyError), early() as start:  # an engine that does not load
        start(2)
        raise KeyError
    assert children(os.getpid()) == before


def test_nothing_to_do_is_no_mistake(tmp_path):
    """As with skip_existing=true, where all is there, whatever pipeline.workers says."""
    overlap.run([], stages_for(Negative(), tmp_path / "out", image_size=16), batch_size=4, workers=2)
    assert files(tmp_path) == {}


@pytest.mark.parametrize(("option", "value"), [("slots", 0), ("workers", -1)])
def test_options_out_of_range(many, tmp_path, option, value):
    with pytest.raises(ValueError, match=rf"pipeline\.{option}={value} is too small"):
        overlap.run(many(1), stages_for(Negative(), tmp_path, image_size=16), batch_size=1, **{option: value})


def test_more_workers_than_a_machine_can_use(many, tmp_path):
    with pytest.raises(ValueError, match=r"pipeline\.workers=100000 is too large for \d+ cores, .*: use \d+ or less"):
        overlap.run(many(1), stages_for(Negative(), tmp_path, image_size=16), batch_size=1, workers=100_000)


def test_more_slots_than_batches_cost_nothing(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", image_size=16)
    overlap.run(many(9), stages, batch_size=2, slots=10**9, workers=1)
    assert len(files(tmp_path / "out")) == 9


class Huge(Negative):
    """Takes images of 300 MB, and makes none."""

    manifest = SimpleNamespace(input_shape=[3, 10_000, 10_000], output_shape=[3, 10_000, 10_000], readings=(RGB, RGB))


@pytest.mark.parametrize(("run", "rule"), [(sequential.run, "batch_size: what"), (overlap.run, "batch_size or fewer")])
def test_batches_that_memory_does_not_hold(many, tmp_path, run, rule):
    """In a sentence, and not by a signal."""
    stages = stages_for(Huge(), tmp_path, image_size=16)
    options = {"slots": 1, "workers": 1} if run is overlap.run else {}
    with pytest.raises(
        ValueError, match=rf"use a smaller {rule} .*0,?000 .*, which takes .* GB of memory, and .* free"
    ):
        run(many(10_000), stages, batch_size=10_000, **options)


@pytest.mark.parametrize(
    ("images", "batch_size", "batches"),
    [(4096, 1, 32), (4096, 8, 4), (4096, 32, 1), (4096, 20, 1), (16, 8, 1), (64, 1, 8)],
)
def test_small_batches_share_a_slot_of_a_gpu_where_many_slots_are_left(images, batch_size, batches):
    assert overlap.batches_per_slot(images, batch_size, image_bytes=2 * 3 * 256**2) == batches


def test_slots_of_large_images_hold_one_batch():
    assert overlap.batches_per_slot(100_000, 1, image_bytes=2 * 3 * 4096**2) == 1


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("slot_size", [1, 8, 32, 128])
def test_the_plan_gives_every_worker_a_task_and_the_next(slot_size, workers, on_gpu):
    part, slots = overlap.ring_for(slot_size, workers, on_gpu=on_gpu)
    assert 1 <= part <= slot_size and slots >= 3
    assert slots * -(-slot_size // part) >= 2 * workers
