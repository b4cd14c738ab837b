"""What concerns one image is that image's failure; what concerns all is the end, and every file is whole."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import pytest

from p2p.codecs.pillow import Pillow
from p2p.data.pairs import Pair, Source
from p2p.pipelines import lightning, overlap, sequential
from p2p.system import atomic
from p2p.system.atomic import write_at_once
from tests.conftest import ROOT
from tests.pipelines.codecs import Codec
from tests.pipelines.conftest import Negative, files, stages_for

RUNS = {"sequential": sequential.run, "overlap": partial(overlap.run, workers=2), "lightning": lightning.run}

WRITER = """
import sys
from pathlib import Path
from p2p.system.atomic import write_at_once
while True:
    for name in "abcd":
        for value in range(1, 9):
            write_at_once(Path(sys.argv[1], name), bytes([value]) * 40_000 * value)
"""


def test_two_runs_that_write_one_folder_are_never_read_in_part(tmp_path):
    for name in "abcd":
        write_at_once(tmp_path / name, b"\1")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT) for _ in range(2)]
    try:
        read, seen = 0, set()
        deadline = time.monotonic() + 30
        while read < 2000 or len(seen) < 8:
            assert time.monotonic() < deadline
            data = (tmp_path / "abcd"[read % 4]).read_bytes()
            assert data == data[:1] * len(data) and len(data) in (1, 40_000 * data[0])
            seen.add(data[0])
            read += 1
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    atomic.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcd")


@pytest.mark.parametrize("run", RUNS)
def test_what_concerns_one_image_is_its_failure(run, many, tmp_path):
    out = tmp_path / "out"
    (out / "folder.webp").mkdir(parents=True)
    (out / "file").touch()
    (out / "closed").symlink_to("/sys/kernel")  # even to root
    np.save(tmp_path / "wide.npy", np.zeros((16, 17_000, 3), np.uint8))  # WebP has 16,383 pixels at most
    one = many(1)[0].input
    long = "长" * 80
    pairs = [
        Pair("folder", one),
        Pair("x" * 253, one),
        Pair("file/below", one),
        Pair("closed/door", one),
        Pair("deleted", Source(tmp_path / "deleted.png")),
        Pair("wide", Source(tmp_path / "wide.npy")),
        Pair(long, one),
    ]
    found = {}
    for _ in range(2):  # the second time all that is there is replaced
        stages = stages_for(Negative(), out, codec=Pillow(format="webp"), image_size=16, restore_size=True)
        stages.on_failure = lambda pair, *failure: found.update({pair.name: failure})
        RUNS[run](pairs + many(20), stages, batch_size=4)
    assert {name: (stage, reason.rpartition(": ")[2]) for name, (stage, reason) in found.items()} == {
        "folder": ("write", "Is a directory"),
        "x" * 253: ("write", "File name too long"),
        "file/below": ("write", "Not a directory"),
        "closed/door": ("write", "Permission denied"),
        "deleted": ("decode", "No such file or directory"),
        "wide": ("encode", "Image size exceeds WebP limit of 16383 pixels"),
    }
    assert all(str(out / f"{name}.webp") in found[name][1] for name in found if name != "deleted")
    assert set(files(out)) == {"file", f"{long}.webp", *(f"{index:05d}.webp" for index in range(20))}


@pytest.mark.parametrize("run", RUNS)
def test_memory_that_one_image_does_not_get_is_its_failure(run, many, tmp_path, monkeypatch):
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("decode", "no memory"), image_size=16)
    RUNS[run](many(10), stages, batch_size=2)
    assert 1 <= len(stages.failures) <= 2 and len(files(tmp_path / "out")) == 10 - len(
        stages.failures
    )  # of each worker
    assert all("one.npy: there is not enough memory" in reason for reason in stages.failures.values())


@contextmanager
def full(out):
    with disk(out, "size=64k"):
        yield errno.ENOSPC


@contextmanager
def read_only(out):
    with disk(out, "ro"):
        yield errno.EROFS


@contextmanager
def vanished(out):
    """As a stick that is pulled out."""
    yield errno.ENOENT


@contextmanager
def disk(folder, options):
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("fault", [full, read_only, vanished])
def test_a_disk_that_takes_no_more_files_is_the_end(run, fault, many, tmp_path):
    out = tmp_path / "out"
    stages = stages_for(Negative(), out, codec=Pillow(format="npy"), image_size=16)
    done = []

    def pull():
        done.append(1)
        if len(done) == 10 and fault is vanished:
            out.rename(tmp_path / "elsewhere")

    stages.on_image = pull
    with fault(out) as number, pytest.raises(OSError) as raised:
        try:
            RUNS[run](many(500), stages, batch_size=2)
        finally:
            written = files(tmp_path / "elsewhere" if fault is vanished else out)
    assert raised.value.errno == number and raised.value.filename.startswith(f"{out}/0")
    assert not stages.failures
    assert (len(written) >= 8) == (fault is not read_only)
    assert all(len(data) == 896 for data in written.values())  # whole: a header of 128 bytes, and 768 of pixels
    assert fault is not vanished or not out.exists()


def test_no_more_descriptors_are_the_end(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", codec=Pillow(format="npy"), image_size=16)
    held, before = [], resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    done = []

    def use_up():
        done.append(1)
        if len(done) == 10:
            with suppress(OSError):
                while True:
                    held.append(os.open("/", os.O_RDONLY))

    stages.on_image = use_up
    try:
        with pytest.raises(OSError, match="Too many open files"):
            sequential.run(many(50), stages, batch_size=1)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(files(tmp_path / "out")) == 10
    assert not stages.failures


def test_a_folder_that_is_deleted_below_the_outputs_is_made_again(many, tmp_path):
    stages = stages_for(Negative(), tmp_path / "out", image_size=16)
    done = []
    stages.on_image = lambda: done.append(1) or (len(done) == 5 and shutil.rmtree(tmp_path / "out/deep"))
    pairs = [Pair(f"deep/{pair.name}", pair.input) for pair in many(10)]
    sequential.run(pairs, stages, batch_size=1)
    assert len(files(tmp_path / "out")) == 5 and not stages.failures
