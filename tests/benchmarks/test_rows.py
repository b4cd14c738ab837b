import os
import subprocess
import threading
from argparse import ArgumentTypeError

import pytest

from benchmarks import rows
from benchmarks.cores import cpu_seconds, limited_to

CODECS = ["fast", "peer"]


def test_rows_are_read_and_have_all_cores_unless_they_say_how_many(monkeypatch):
    monkeypatch.setattr(rows, "available_cores", lambda: 16)
    assert rows.rows("fast:jpg:32,peer:png:8:4", codecs=CODECS) == [("fast", "jpg", 32, 16), ("peer", "png", 8, 4)]


@pytest.mark.parametrize("text", ["fast:jpg", "fast:jpg:x", "fast:jpg:0", "slow:jpg:8", "fast:gif:8", "fast:jpg:8:1:1"])
def test_another_row_is_refused(text):
    with pytest.raises(ArgumentTypeError, match=f"{text} is not CODEC"):
        rows.rows(text, codecs=CODECS)


def test_more_cores_than_there_are_are_refused():
    with pytest.raises(ArgumentTypeError, match="asks for 9999 cores"):
        rows.rows("fast:jpg:8:9999", codecs=CODECS)


def test_the_table_compares_with_the_peer_of_equal_format_batch_and_cores():
    facts = {"format": "jpg", "batch": 32, "cores_busy": 3.96}
    lines = rows.table(
        [
            {"codec": "fast", "cores": 4, "images_per_s": 3000.0} | facts,
            {"codec": "peer", "cores": 4, "images_per_s": 1500.0} | facts,
            {"codec": "fast", "cores": 8, "images_per_s": 6000.0} | facts,
            {"codec": "fast", "cores": 2, "failed": "OSError: no"} | facts,
        ]
    ).splitlines()
    assert lines[2] == "| fast | jpg | 32 | 4 | 3,000 | 4.0 | 2.00 |"
    assert lines[4] == "| fast | jpg | 32 | 8 | 6,000 | 4.0 |  |"
    assert lines[5] == "| fast | jpg | 32 | 2 | failed |  |  |"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it takes two cores to take one away")
def test_threads_and_children_that_are_there_have_fewer_cores_and_then_all_again():
    cores, over = os.sched_getaffinity(0), threading.Event()
    thread = threading.Thread(target=over.wait, daemon=True)
    thread.start()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:  # until its input ends
        tasks = 0, thread.native_id, child.pid
        with limited_to(1):
            assert [os.sched_getaffinity(task) for task in tasks] == [{min(cores)}] * 3
        assert [os.sched_getaffinity(task) for task in tasks] == [cores] * 3
    over.set()


def test_processor_time_counts_children_that_run_and_those_that_have_ended():
    begin = cpu_seconds()
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True); input()"
    with subprocess.Popen(["python3", "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        running = cpu_seconds() - begin
        child.communicate(b"\n")
    ended = cpu_seconds() - begin
    assert 0.19 < running < 5 and ended >= running - 0.02
