"""Which folders export.py replaces, and how: a whole artifact is there at any moment."""

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from p2p.commands import export as command
from p2p.deploy import artifact
from p2p.deploy.artifact import place_for, put, recover
from p2p.deploy.backends import exported_program
from p2p.deploy.export import export as export_program
from p2p.deploy.manifest import FILE, Manifest, Program
from p2p.system.atomic import folder_beside, sweep
from p2p.system.digest import sha256


@pytest.fixture(params=["one step", "two steps"])
def steps(request, monkeypatch):
    """Also where the file system cannot exchange two folders."""
    if request.param == "two steps":
        monkeypatch.setattr(artifact, "exchange", lambda one, other: False)
    return request.param


def fill(folder, content=b"program", file="generator.pt2"):
    """A small artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(content)
    Manifest(
        program=Program("exported_program", file, "float32", None, {"torch": "2.14.1"}),
        program_sha256=sha256(folder / file),
        input_shape=[3, 32, 32],
        output_shape=[3, 32, 32],
        norm_stats="instance",
        direction="AtoB",
        preprocess="none",
        multiple=4,
        image_size=32,
        checkpoint="last.ckpt",
        checkpoint_sha256="0" * 64,
        psnr_db={},
    ).save(folder)
    return folder


def content(folder):
    """Of the program, which the manifest must be of."""
    manifest = Manifest.load(folder)
    assert sha256(folder / manifest.program.file) == manifest.program_sha256
    return (folder / manifest.program.file).read_bytes()


def export(folder, data):
    """What `p2p.deploy.export.export` does, without a network."""
    folder = place_for(folder)
    sweep(folder.parent)
    with folder_beside(folder) as new:
        fill(new, data)
        put(new, folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refusals(tmp_path):
    """Places where no artifact may be put, and what the sentence must name."""
    home = tmp_path / "home"
    (home / "empty").mkdir(parents=True)
    (home / "thesis.txt").write_text("x")
    yield home, "holds empty"
    run = tmp_path / "runs/x"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").write_bytes(b"x")
    yield run, "holds checkpoints"
    yield run / "checkpoints", "holds last.ckpt"
    yield run / "checkpoints/last.ckpt", "is a file"
    yield run / "checkpoints/last.ckpt/export", "last.ckpt is a file"
    (tmp_path / "link").symlink_to(home)
    yield tmp_path / "link", "holds empty"
    yield tmp_path / "link/.", "holds empty"
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/.git").mkdir()
    yield tmp_path / "hidden", r"holds \.git"
    noted = fill(tmp_path / "noted")
    (noted / "notes.txt").write_text("x")
    yield noted, "holds notes.txt"
    nested = fill(tmp_path / "nested")
    (nested / "generator.kernels").mkdir()
    yield nested, "holds generator.kernels"
    foreign = fill(tmp_path / "foreign")
    (foreign / FILE).write_text('{"name": "an app", "icons": []}')  # of a web page
    yield foreign, "holds generator.pt2"
    outside = fill(tmp_path / "outside")
    record = json.loads((outside / FILE).read_text())
    record["program"]["file"] = "../home/thesis.txt"
    (outside / FILE).write_text(json.dumps(record))
    yield outside, "holds generator.pt2"
    yield "/proc", "is a mount point"


def test_what_is_no_artifact_is_refused_and_stays(tmp_path, monkeypatch):
    for output, what in refusals(tmp_path):
        before = snapshot(tmp_path)
        with pytest.raises(ValueError, match=f"^output={output} .*{what}.*: name a[^\n]*$"):
            place_for(output)
        assert snapshot(tmp_path) == before, output
    monkeypatch.chdir(fill(tmp_path / "here"))
    for output in (".", "../here", ".."):
        with pytest.raises(ValueError, match=f"^output={output} is the folder that this runs in, or holds it: name"):
            place_for(output)


def test_places_that_an_artifact_may_take(tmp_path, steps):
    (tmp_path / "empty").mkdir()
    kept = fill(tmp_path / "kept", file="generator.frames.pt2")
    for suffix in (".kernels", ".kernels.lock", ".kernels.tmp"):  # as Torch-TensorRT's RuntimeCache leaves them
        (kept / f"generator.frames{suffix}").write_bytes(b"x")
    older = fill(tmp_path / "older")
    record = json.loads((older / FILE).read_text())
    (older / FILE).write_text(json.dumps(record | {"colour": "red"}))  # of another version of p2p
    linked = fill(tmp_path / "store/v1").rename(tmp_path / "store/v2")
    (tmp_path / "current").symlink_to(linked)
    for name in ("missing", "a/b/missing", "empty", "kept", "older", "current", "empty/"):
        place_for(tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        export(tmp_path / name, name.encode())
        assert content(tmp_path / name) == name.encode()
    assert (tmp_path / "current").is_symlink() and names(tmp_path / "store") == ["v2"]
    assert names(kept) == ["generator.pt2", "manifest.json"]
    assert names(tmp_path) == ["a", "current", "empty", "kept", "missing", "older", "store"]


def test_what_the_user_puts_there_during_the_export_stays(tmp_path, steps):
    folder = fill(tmp_path / "export", b"old")
    with pytest.raises(ValueError, match=r"holds notes\.txt"), folder_beside(folder) as new:
        fill(new, b"new")
        (folder / "notes.txt").write_text("mine")
        put(new, folder)
    assert (folder / "notes.txt").read_text() == "mine" and content(folder) == b"old"
    assert names(tmp_path) == ["export"]


def test_exports_at_once_and_readers_meet_whole_artifacts_alone(tmp_path):
    folder = fill(tmp_path / "export", b"0" * 1000)
    over, failures = threading.Event(), []

    def keep_exporting(letter):
        try:
            while not over.is_set():
                export(folder, letter * 1000)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=keep_exporting, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    whole, seen = {letter * 1000 for letter in (b"0", b"a", b"b")}, set()
    for _ in range(2000):
        handle = os.open(folder, os.O_RDONLY)  # of one artifact, whatever its name is by now
        with contextlib.suppress(FileNotFoundError):  # replaced, and removed
            program = os.open("generator.pt2", os.O_RDONLY, dir_fd=handle)
            seen.add(os.read(program, 9999))
            os.close(program)
        os.close(handle)
    over.set()
    for writer in writers:
        writer.join()
    assert not failures
    assert seen <= whole
    assert content(folder) in whole - {b"0" * 1000} and names(tmp_path) == ["export"]


def test_another_exports_sweep_does_not_take_what_is_checked(tmp_path):
    """What was replaced has a temporary name while it is looked at: half of it would be a stranger's, and put back."""
    folder, new = fill(tmp_path / "export", b"old"), fill(tmp_path / ".p2p-012345678901.partial", b"new")

    def check(replaced, said):
        sweep(tmp_path)
        artifact.check_replaceable(replaced, said)
        assert content(replaced) == b"old"

    put(new, folder, check=check)
    assert content(folder) == b"new" and content(new) == b"old"
    sweep(tmp_path)
    assert names(tmp_path) == ["export"]


def stop_when(moment, folder, stop):
    """Have an export of this process call `stop` at a moment."""
    if moment == "filled":
        artifact.flush_folder = stop
    if moment == "moved aside":
        artifact.exchange = lambda one, other: False
        rename = Path.rename
        Path.rename = lambda self, to: rename(self, to) if folder.exists() else stop()
    if moment == "put":
        artifact.check_replaceable = lambda new, output: ".p2p-" in str(new) and stop()


@pytest.mark.parametrize(("moment", "left"), [("filled", b"old"), ("moved aside", b"old"), ("put", b"new")])
def test_a_kill_at_any_moment_leaves_one_that_works(tmp_path, moment, left):
    folder = fill(tmp_path / "export", b"old")
    (tmp_path / "export.partial").mkdir()  # the user's
    (tmp_path / ".p2p-notes.partial").mkdir()  # left by a process that is dead
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):  # which are no matter of pytest's here
            stop_when(moment, folder, stop=lambda *_: os.write(writer, b"!") and signal.pause())
            export(folder, b"new")
        os._exit(1)
    assert os.read(reader, 1) == b"!"
    living = names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == living or moment == "put"  # the old one is nobody's by then
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(reader)
    os.close(writer)
    recover(folder)
    assert content(folder) == left
    export(folder, b"again")
    assert content(folder) == b"again"
    assert names(tmp_path) == ["export", "export.partial"]


def test_a_full_disk_is_one_sentence_and_the_old_artifact_stays(small_disk):
    folder = fill(small_disk / "export", b"old")
    with pytest.raises(OSError, match="No space left on device") as raised:
        export(folder, b"x" * 200_000)
    assert raised.value.filename == str(folder)
    assert content(folder) == b"old" and names(small_disk) == ["export"]
    with pytest.raises(ValueError, match="is a mount point"):
        place_for(small_disk)


def test_a_program_that_the_disk_does_not_hold_is_one_sentence(small_disk, tmp_path):
    """Where torch writes to a file that it cannot write, it ends the process."""
    (tmp_path / "last.ckpt").touch()
    facts = {"norm_stats": "running", "direction": "AtoB", "checkpoint": tmp_path / "last.ckpt"}
    network, images = nn.Conv2d(3, 3, 81, padding=40).eval(), torch.zeros(1, 3, 8, 8)
    folder = small_disk / "export"
    for filled in (0, 60_000, 120_000):  # the disk ends within the weights, or before them
        (small_disk / "users").write_bytes(b"x" * filled)
        with pytest.raises(OSError, match="No space left on device") as raised:
            export_program(
                network, images, folder, backend=exported_program.export, device=torch.device("cpu"), **facts
            )
        assert raised.value.filename == str(folder) and names(small_disk) == ["users"]


def test_the_place_is_looked_at_before_anything_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    for output in (tmp_path, tmp_path / "thesis.txt"):
        cfg = OmegaConf.create({"output": str(output)})  # whatever it would look up next is not there
        with pytest.raises(ValueError, match=f"^output={output} "):
            command.export_program(cfg)
