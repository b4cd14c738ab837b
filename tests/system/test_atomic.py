"""Files are replaced atomically: by two writers at once, by one that is killed, on a disk that is full."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from p2p.system.atomic import replacing, sweep, write
from tests.conftest import ROOT

WRITER = """
import sys
from pathlib import Path
from p2p.system.atomic import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def names(folder):
    return [path.name for path in folder.iterdir()]


def leftovers(folder):
    return [name for name in names(folder) if name.endswith(".partial")]


def test_an_error_leaves_the_old_contents_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write(path, "old")
    with pytest.raises(RuntimeError, match="of the block"), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError("of the block")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_the_file_has_the_permissions_that_the_user_asks_for(tmp_path):
    write(tmp_path / "ours", b"x")
    (tmp_path / "theirs").write_bytes(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_the_longest_name_that_a_file_system_takes(tmp_path):
    for name in ("x" * 251 + ".png", "\u5716" * 83 + ".png"):
        for text in ("first", "second"):
            write(tmp_path / name, text)
        assert (tmp_path / name).read_text() == "second"


def test_two_writers_of_one_file_never_share_a_temporary_file(tmp_path):
    path, over = tmp_path / "file", threading.Event()
    contents = [bytes([letter]) * 100_000 for letter in b"ab"]
    write(path, contents[0])

    def keep_writing(data):
        while not over.is_set():
            write(path, data, durable=False)

    writers = [threading.Thread(target=keep_writing, args=(data,)) for data in contents]
    for writer in writers:
        writer.start()
    try:
        seen = {path.read_bytes() for _ in range(2000)}
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert seen <= set(contents)
    assert leftovers(tmp_path) == []


def test_sweep_removes_what_a_killed_process_left_and_nothing_of_a_living_one(tmp_path):
    path = tmp_path / "file"
    write(path, "old")
    (tmp_path / "users.partial").write_text("not ours")
    (tmp_path / ".p2p-notes").write_text("not ours")
    command = [sys.executable, "-c", WRITER, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        assert len(leftovers(tmp_path)) == 3
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        sweep(tmp_path)
        assert len(leftovers(tmp_path)) == 2 and path.read_text() == "old"
        processes[1].communicate("", timeout=10)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sorted(names(tmp_path)) == [".p2p-notes", "file", "users.partial"]
    assert path.read_text() == "half"


def test_sweeping_all_the_time_takes_no_file_from_its_writer(tmp_path):
    over = threading.Event()

    def keep_sweeping():
        while not over.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=keep_sweeping)
    sweeper.start()
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            write(tmp_path / "file", b"x" * 1000, durable=False)
    finally:
        over.set()
        sweeper.join()
    assert (tmp_path / "file").read_bytes() == b"x" * 1000


def test_an_error_of_the_disk_names_the_file_that_was_to_be_written(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        write(tmp_path / "no/such/folder/file", b"x")
    assert raised.value.filename == str(tmp_path / "no/such/folder/file")
    with pytest.raises(OSError, match="No space left") as raised, replacing(tmp_path / "file"):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")
    assert raised.value.filename == str(tmp_path / "file")
    assert names(tmp_path) == []
