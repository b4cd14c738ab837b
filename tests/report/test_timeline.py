import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import ImageColor

from p2p.profiling.clock import WORK, Clock, Span
from p2p.report import timeline_picture
from p2p.report.lanes import arrange
from p2p.report.timeline import profile, trace

MS = 1_000_000


def overlapped(batches=20, size=4):
    """Spans as an overlapped run makes them, a batch every 10 ms, and the clock that counted them."""
    clock = Clock()
    clock.keep_spans()
    clock.add(Span("init", "main", 0, 50 * MS))
    for batch in range(batches):
        start = (100 + 10 * batch) * MS
        for image in range(size):
            reader = f"reader {(batch * size + image) % 2}"
            at = start - 30 * MS + image // 2 * 4 * MS
            clock.add(Span("decode", reader, at, at + 2 * MS))
            clock.add(Span("preprocess", reader, at + 2 * MS, at + 3 * MS))
        clock.add(Span("generate", "engine stream", start, start + 9 * MS, size))
        clock.add(Span("encode", f"writer {batch % 12}", start + 10 * MS, start + 17 * MS, size))
    clock.add(Span("e2e", "main", 60 * MS, (120 + 10 * batches) * MS, batches * size))
    return clock


def timeline_of(clock, batches=6):
    return arrange(clock.spans, clock, batches=batches)


def test_lanes_stand_in_the_order_of_the_work():
    lanes = list(timeline_of(overlapped()).lanes)
    assert lanes[:4] == ["run", "reader 0", "reader 1", "engine stream"]
    assert lanes[4:] == [f"writer {number}" for number in range(12)]


def test_every_bar_knows_its_batch():
    timeline = timeline_of(overlapped())
    assert [bar.batch for bar in timeline.lanes["engine stream"]] == list(range(20))
    assert [bar.batch for bar in timeline.lanes["writer 3"]] == [3, 15]
    decoded = [bar.batch for bar in timeline.lanes["reader 1"] if bar.stage == "decode"]
    assert decoded == [batch for batch in range(20) for _ in range(2)]
    assert {bar.batch for bar in timeline.lanes["run"]} == {None}


def test_batches_are_counted_from_the_start_where_only_the_last_spans_were_kept():
    clock = overlapped()
    clock.keep_spans(30)
    timeline = timeline_of(clock)
    assert sum(map(len, timeline.lanes.values())) == 30
    assert timeline.lanes["engine stream"][-1].batch == 19


def test_the_window_holds_batches_of_the_middle():
    timeline = timeline_of(overlapped(batches=20), batches=6)
    assert timeline.window_ns == ((100 + 70) * MS, (100 + 70 + 59) * MS)
    few = timeline_of(overlapped(batches=3))
    assert few.window_ns == (70 * MS, (100 + 20 + 17) * MS)  # all the work, without init


def test_spans_of_a_lane_that_overlap_get_a_second_line():
    clock = Clock()
    clock.keep_spans()
    for begin, end in [(0, 10), (5, 15), (10, 20), (12, 13)]:
        clock.add(Span("decode", "decoder", begin, end, 8))
    lanes = timeline_of(clock).lanes
    times = {lane: [(bar.begin_ns, bar.end_ns) for bar in bars] for lane, bars in lanes.items()}
    assert times == {"decoder": [(0, 10), (10, 20)], "decoder (2)": [(5, 15)], "decoder (3)": [(12, 13)]}


def test_the_trace_follows_the_format():
    """Rules of the Trace Event Format: the keys that each phase needs, microseconds, slices of a thread that nest."""
    clock = overlapped()
    record = json.loads(json.dumps(trace(timeline_of(clock)), allow_nan=False))
    assert record["displayTimeUnit"] in ("ms", "ns")
    events = record["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) + sum(event["ph"] == "M" for event in events) == len(events)
    assert all(isinstance(event["pid"], int) and isinstance(event["tid"], int) for event in events)
    assert len(slices) == len(clock.spans)
    for tid in names:
        row = sorted((event for event in slices if event["tid"] == tid), key=lambda event: event["ts"])
        assert row and all(event["ts"] >= 0 and event["dur"] >= 0 for event in row)
        assert all(one["ts"] + one["dur"] <= other["ts"] for one, other in pairwise(row))
    found = sorted((e["name"], names[e["tid"]], e["ts"], e["dur"], e["args"]["images"]) for e in slices)
    spans = [s._replace(lane="run") if s.stage in ("init", "e2e") else s for s in clock.spans]  # the first begins at 0
    assert found == sorted((s.stage, s.lane, s.begin_ns / 1e3, (s.end_ns - s.begin_ns) / 1e3, s.images) for s in spans)


def test_the_picture_shows_each_bar_where_its_time_is():
    """Pixels of each stage's colour in each lane, against the spans' share of the window."""
    timeline = timeline_of(overlapped(), batches=6)
    pixels = np.asarray(timeline_picture.draw(timeline))
    begin, end = timeline.window_ns
    lanes = [name for name in timeline.lanes if timeline_picture.visible(timeline.lanes[name], begin, end)]
    lanes.remove("run")
    last = pixels[-timeline_picture.BOTTOM - timeline_picture.GAP - 2]  # a line of the last lane, below its name
    track = np.flatnonzero((last == ImageColor.getrgb(timeline_picture.TRACK)).all(1))
    right = timeline_picture.WIDTH - timeline_picture.RIGHT
    left = track.min()
    for index, name in enumerate(lanes):
        top = timeline_picture.TOP + index * (timeline_picture.LANE + timeline_picture.GAP)
        line = pixels[top + 2, left:right]  # above the text
        for stage in WORK:
            drawn = (line == ImageColor.getrgb(timeline_picture.colour(stage))).all(1)
            expected = np.zeros(right - left, bool)
            for bar in timeline.lanes[name]:
                if bar.stage == stage:
                    first, last = (
                        round((t - begin) / (end - begin) * (right - left)) for t in (bar.begin_ns, bar.end_ns)
                    )
                    expected[max(first, 0) : max(last, 0)] = True
            assert (drawn != expected).sum() <= 4 * len(timeline.lanes[name])  # gaps, and rounding at the margin
            assert drawn.any() == expected.any()
    assert pixels.shape[1] == timeline_picture.WIDTH


def test_a_bar_of_no_length_is_seen():
    clock = Clock()
    clock.keep_spans()
    clock.add(Span("generate", "main", 0, 100 * MS, 4))
    clock.add(Span("write", "writer 0", 50 * MS, 50 * MS + 1))
    pixels = np.asarray(timeline_picture.draw(timeline_of(clock)))
    red = (pixels == ImageColor.getrgb(timeline_picture.colour("write"))).all(2)
    assert red[timeline_picture.TOP :].sum() == timeline_picture.LANE


@pytest.mark.parametrize("length_ns", [3, 999, 12_345, 10**7, 29 * MS, 10**11])
def test_ticks_are_round_and_few(length_ns):
    found = timeline_picture.ticks(length_ns)
    assert 4 <= len(found) - 1 <= 10 or length_ns < 10
    assert found[0][0] == 0 and found[-1][0] <= length_ns
    for time, label in found:
        assert float(label.removesuffix(" ms")) == pytest.approx(time / 1e6)


def test_a_run_that_fails_leaves_its_timeline_and_one_without_work_leaves_none(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), profile(clock := Clock(), folder=tmp_path / "new/run"):
        with clock("generate", 4):
            pass
        raise KeyboardInterrupt
    assert {path.name for path in (tmp_path / "new/run").iterdir()} == {"timeline.json", "timeline.png"}
    assert "new/run/timeline.json in ui.perfetto.dev" in capsys.readouterr().out
    with profile(clock := Clock(), folder=tmp_path / "none"), clock("init"):
        pass
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match=r"profile\.batches=0"), profile(Clock(), folder=tmp_path, batches=0):
        pass
