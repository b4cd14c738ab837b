"""Every stage is broken or killed in turn: the run ends soon, says why, and leaves whole files and nothing else."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from p2p.pipelines import overlap
from p2p.system import atomic
from tests.conftest import ROOT
from tests.pipelines.codecs import Codec, Cropping, NotHere
from tests.pipelines.conftest import Negative, children, files, shared_memory, stages_for

pytestmark = pytest.mark.slow

WHOLE = np.full((16, 16, 3), 200, np.uint8)  # the negative of 55
LIMIT_S = 2 + 3  # by the specification, and for the start, which a busy machine delays


def ends_with(kind, match, stages, pairs, **options):
    """Run, check how it ends and what it leaves, and return the exception."""
    gc.collect()  # what an earlier test left would go during this one
    before = children(os.getpid()), shared_memory()
    started = time.monotonic()
    with pytest.raises(kind, match=match) as raised:
        overlap.run(pairs, stages, **{"batch_size": 4, "workers": 2} | options)
    assert time.monotonic() - started < LIMIT_S
    error = link = raised.value
    del raised
    while link is not None:  # the frames of their traces hold the arrays
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    gc.collect()
    assert (children(os.getpid()), shared_memory()) == before
    only_whole_files(stages.files.output)
    return error


def only_whole_files(folder):
    for name, data in files(folder).items():
        assert name.endswith(".npy") and not name.startswith(".")
        path = folder / name
        assert np.array_equal(np.load(path), WHOLE), len(data)


@pytest.mark.parametrize("stage", ["decode", "encode"])
def test_a_killed_worker_is_named(stage, many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec(stage, "kill"), image_size=16)
    ends_with(ValueError, r"worker process \d+ of the pipeline has died \(signal SIGKILL\): if", stages, many(500))


def test_a_worker_killed_before_its_file_has_a_name_leaves_no_part(many, tmp_path):
    codec = Codec("encode", "kill before the name")
    stages = stages_for(Negative(), tmp_path / "out", codec=codec, image_size=16)
    ends_with(ValueError, "SIGKILL", stages, many(500))
    assert len(files(tmp_path / "out")) >= 2  # those before it


def test_a_file_of_a_worker_killed_before_the_rename_is_swept(many, tmp_path):
    """Where files cannot be nameless; infer.py sweeps."""
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "kill before the rename"), image_size=16)
    with pytest.raises(ValueError, match="SIGKILL"):
        overlap.run(many(500), stages, batch_size=4, workers=2)
    found = files(tmp_path / "out")
    assert 1 <= sum(name.startswith(atomic.PREFIX) for name in found) <= 2
    atomic.sweep(tmp_path / "out")
    assert set(files(tmp_path / "out")) == {name for name in found if name.endswith(".npy")}
    only_whole_files(tmp_path / "out")


def test_a_bug_in_a_codec_keeps_its_type_and_its_stack_trace(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "bug"), image_size=16)
    error = ends_with(KeyError, "a bug in the codec", stages, many(500))
    assert "in raise_bug" in str(error.__cause__)


def test_an_exception_that_cannot_travel_is_told(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("decode", "unpicklable"), image_size=16)
    ends_with(RuntimeError, "Unpicklable: of another world", stages, many(500))


def test_a_bug_in_a_decoder_does_not_pass_as_images_that_cannot_be_read(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Cropping(format="npy"), image_size=16)
    ends_with(ValueError, "could not broadcast", stages, many(500))
    assert not stages.failures


def test_a_codec_that_a_worker_cannot_load(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=NotHere(format="npy"), image_size=16)
    ends_with(ImportError, "its library is not installed here", stages, many(500))
    assert files(tmp_path / "out") == {}


def test_a_full_disk(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "disk full"), image_size=16)
    ends_with(OSError, "File too large", stages, many(500))
    assert len(files(tmp_path / "out")) >= 2


def test_a_disk_behind_a_connection_that_breaks_is_not_taken_for_the_end(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "disk lost"), image_size=16)
    ends_with(ConnectionAbortedError, "Software caused connection abort", stages, many(500))


def test_a_folder_that_cannot_be_made(many, tmp_path):
    (tmp_path / "file").touch()
    stages = stages_for(Negative(), tmp_path / "file/out", image_size=16)
    error = ends_with(OSError, "Not a directory", stages, many(500))
    assert str(tmp_path / "file/out") in error.filename


@pytest.mark.parametrize("hang", [False, True], ids=["workers go on", "workers hang"])
def test_an_exception_of_the_engine(hang, many, tmp_path):
    calls = []

    class Broken(Negative):
        def frames(self, frames_NHWC):
            calls.append(1)
            if len(calls) == 6:
                raise RuntimeError("the engine broke")
            return 255 - frames_NHWC

    codec = Codec("encode", "hang" if hang else "slow", at=5 if hang else None)
    stages = stages_for(Broken(), tmp_path / "out", codec=codec, image_size=16)
    ends_with(RuntimeError, "the engine broke", stages, many(500), slots=6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(number, many, tmp_path):
    """Also one that all processes of a job get."""
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "slow", at=None), image_size=16)

    def press():
        until(lambda: any((tmp_path / "out").glob("*.npy")), seconds=LIMIT_S)
        for worker in children(os.getpid()):
            os.kill(worker, number)
        signal.raise_signal(number)

    before = signal.signal(number, signal.default_int_handler)  # a shell's background ignores it
    try:
        threading.Thread(target=press).start()
        ends_with(KeyboardInterrupt, None, stages, many(5000))
    finally:
        signal.signal(number, before)
    assert 0 < len(files(tmp_path / "out")) < 5000


SCRIPT = """
import sys
from pathlib import Path
from p2p.system.signals import stoppable, work
from p2p.data.pairs import Pair, Source
from p2p.data.pairs import Pair
from p2p.pipelines import overlap
from tests.pipelines.codecs import Codec
from tests.pipelines.conftest import Negative, stages_for
stages = stages_for(Negative(), Path(sys.argv[2]), codec=Codec("encode", "slow", at=None), image_size=16)
pairs = [Pair(str(index), Source(Path(sys.argv[1]))) for index in range(100_000)]
with stoppable():
    work()
    overlap.run(pairs, stages, batch_size=400, workers=2)  # tasks of 200 images, 4 seconds long
"""


def test_a_command_that_is_stopped_or_killed_takes_its_workers_along(many, tmp_path):
    """By Ctrl-C, whose exit status is 130, and by SIGKILL, after which it cannot tell them."""
    signals = {signal.SIGINT: 130, signal.SIGKILL: -9}
    processes = {}
    for number in signals:  # at the same time, since each imports torch
        command = [sys.executable, "-c", SCRIPT, str(many(1)[0].input.path), str(tmp_path / number.name)]
        processes[number] = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
        )
    try:
        for number, process in processes.items():
            out = tmp_path / number.name
            until(lambda out=out: len(files(out)) > 5, seconds=60)
            workers = children(process.pid)
            assert len(workers) == 2
            process.send_signal(number)
            until(lambda workers=workers: not any(alive(worker) for worker in workers), seconds=2)
            error = process.communicate(timeout=30)[1]  # Python takes a second to end, and longer on busy cores
            assert process.returncode == signals[number]
            assert ("stopped by Ctrl-C" in error) == (number == signal.SIGINT) and "Traceback" not in error
            only_whole_files(out)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert shared_memory()[0] == set()


def test_a_dead_worker_is_noticed_between_two_calls_of_the_engine(many, tmp_path):
    """Not when all batches that were loaded have been translated."""
    calls = []

    class Killing(Negative):
        def frames(self, frames_NHWC):
            calls.append(1)
            if len(calls) == 3:
                os.kill(min(children(os.getpid())), signal.SIGKILL)
                time.sleep(0.1)
            return 255 - frames_NHWC

    stages = stages_for(Killing(), tmp_path / "out", image_size=16, codec=Codec("none", "bug", at=0))
    ends_with(ValueError, "SIGKILL", stages, many(500), slots=20)
    assert len(calls) <= 4


def until(condition, *, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
