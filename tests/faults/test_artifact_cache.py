"""The build cache: what is wrong with a disk costs no good entry, and what is not the cache's own stays."""

import contextlib
import os
import signal
import subprocess

import pytest
import torch
from torch import nn

from p2p.deploy import cache
from p2p.deploy.cache import build, prune
from p2p.deploy.manifest import Program

NETWORK, IMAGES, SIZE = nn.Conv2d(3, 3, 3).eval(), torch.zeros(1, 3, 8, 8), 50_000


def backend(network, images_NCHW, folder):
    backend.calls += 1
    (folder / "generator.pt2").write_bytes(b"x" * SIZE)
    return Program("exported_program", "generator.pt2", "float32", None, {"torch": "2.14"})


@pytest.fixture
def place(tmp_path):
    """A cache with one entry."""
    backend.calls = 0
    run(tmp_path / "first", tmp_path / "cache")
    return tmp_path / "cache"


def run(folder, place):
    """A build; how many there were by then."""
    folder.mkdir()
    build(backend, NETWORK, IMAGES, folder, device=torch.device("cpu"), cache_dir=place)
    assert (folder / "generator.pt2").stat().st_size == SIZE
    return backend.calls


def mount(what, *options):
    subprocess.run(["mount", *options, str(what)], check=True)


def test_a_full_disk_of_the_artifact_keeps_the_entry(tmp_path, place, small_disk, caplog):
    (small_disk / "users").write_bytes(b"x" * 100_000)
    with pytest.raises(OSError, match="No space left on device") as raised:
        run(small_disk / "full", place)
    assert raised.value.filename == str(small_disk / "full")
    assert "damaged" not in caplog.text
    assert run(tmp_path / "again", place) == 1


def test_a_full_disk_of_the_cache_is_a_warning_and_keeps_its_entries(tmp_path, place, small_disk, caplog):
    run(tmp_path / "second", small_disk / "cache")  # fits
    before = names(small_disk / "cache")
    with torch.no_grad():
        NETWORK.bias += 1
    (small_disk / "users").write_bytes(b"x" * 50_000)
    run(tmp_path / "third", small_disk / "cache")
    assert "cannot be used (No space left on device): set cache_dir" in caplog.text
    assert names(small_disk / "cache") == before


def test_a_cache_that_is_read_only_serves(tmp_path, place, caplog):
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    mount(place, "--bind", str(place))
    try:
        mount(place, "-o", "remount,ro,bind")
        assert run(tmp_path / "second", place) == 1
        with torch.no_grad():
            NETWORK.bias += 1
        assert run(tmp_path / "third", place) == 2
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert "cannot be used (Read-only file system): set cache_dir" in caplog.text
    assert "damaged" not in caplog.text


def test_an_entry_that_cannot_be_read_stays(tmp_path, place, caplog):
    (entry,) = place.iterdir()
    record = entry / "entry.json"
    record.rename(entry / "aside")
    record.mkdir()  # reading it is an error of the system, for root, too
    assert run(tmp_path / "second", place) == 2
    assert f"{record} of the build cache cannot be read (Is a directory): building again" in caplog.text
    record.rmdir()
    (entry / "aside").rename(record)
    assert run(tmp_path / "third", place) == 2


def test_an_entry_names_files_of_its_own_alone(tmp_path, place, caplog):
    (entry,) = place.iterdir()
    record = (entry / "entry.json").read_text()
    (entry / "entry.json").write_text(record.replace('"generator.pt2": "', '"../first/generator.pt2": "'))
    assert run(tmp_path / "second", place) == 2
    assert "is damaged (../first/generator.pt2 was changed)" in caplog.text


def test_a_kill_while_an_entry_is_stored_leaves_none_and_the_next_one_sweeps(tmp_path, place):
    (entry,) = place.iterdir()
    entry.rename(tmp_path / "entry")
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):  # which are no matter of pytest's here
            cache.sha256 = lambda path: os.write(writer, b"!") and signal.pause()
            cache.store(entry, tmp_path / "first", cache.Build(None, "", 0.0))
        os._exit(1)
    assert os.read(reader, 1) == b"!"
    prune(place)
    (partial,) = names(place)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(reader)
    os.close(writer)
    assert partial.startswith(".p2p-")
    assert run(tmp_path / "second", place) == 2
    assert names(place) == [entry.name]


def test_a_cache_in_a_folder_of_the_users_leaves_what_is_there(tmp_path, place, monkeypatch):
    monkeypatch.setattr(cache, "MOST_ENTRIES", 0)
    for name in ("Documents", "b" * 64, ".p2p-notes"):
        (place / name).mkdir()
        os.utime(place / name, (0, 0))
    prune(place)
    assert names(place) == [".p2p-notes", "Documents", "b" * 64]


def names(folder):
    return sorted(path.name for path in folder.iterdir())
