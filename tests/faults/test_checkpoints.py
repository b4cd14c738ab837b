"""Checkpoints, and the record of the run, through full disks and kills."""

import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from p2p.batch import Batch
from p2p.commands import train
from p2p.run.checkpoint import find_checkpoint, origin_of
from p2p.run.record import read_record
from p2p.system import atomic
from p2p.system.lock import held
from p2p.training.saving import Checkpoints
from p2p.training.writer import Writer
from tests.test_configs import compose_command
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix

TINY = ["image_size=32", "generator.width=8", "discriminator=pixel", "trainer=cpu", "~logger", "data=folder"]
QUICK = [*TINY, "~callbacks.learning_rate", "~callbacks.progress", "batch_size=4"]


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of so many bytes; returns its folder."""
    mounted = []

    def of(size):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)
        return folder

    yield of
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def forked(work):
    """Do it in a process of its own, which is killed when the block ends; yields its id."""
    if not (child := os.fork()):
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def killed_at(place, name, monkeypatch, work):
    """Do it in a process of its own, which is killed where it comes to this function."""
    with monkeypatch.context() as patch:
        patch.setattr(place, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        with forked(work) as child:
            deadline = time.monotonic() + 20
            while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT).si_code == os.CLD_KILLED


def of_run(folder, lr, **options):
    return Checkpoints(OmegaConf.create({"generator": 1, "lr": lr}), folder, writer=Writer(), **options)


def save(saving, contents, path):
    saving.save_checkpoint(contents, path)
    saving.teardown()


def leftovers(folder):
    return [path.name for path in folder.rglob("*.partial")]


def test_a_kill_while_saving_leaves_a_whole_checkpoint(tmp_path):
    last = tmp_path / "checkpoints/last.ckpt"
    big = {"weights": torch.zeros(5_000_000)}

    def save_for_ever():
        saving = of_run(tmp_path, lr=1)
        while True:
            save(saving, big, last)

    interrupted = 0
    for delay in range(10):
        with forked(save_for_ever):
            deadline = time.monotonic() + 20
            while not leftovers(tmp_path):
                assert time.monotonic() < deadline
            time.sleep(0.002 * delay)
        interrupted += bool(leftovers(tmp_path))
        assert not last.exists() or torch.load(last, weights_only=True)["weights"].shape == (5_000_000,)
        atomic.sweep(last.parent)
        assert not leftovers(tmp_path)
    assert interrupted
    save(of_run(tmp_path, lr=1), big, last)
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_in_mid_training_keeps_the_checkpoint_before(disk, pair_folder, tmp_path):
    options = [*QUICK, f"data.root={pair_folder}", "~callbacks.samples", "~callbacks.best", "~callbacks.live"]
    train.main(compose_command("train", [*options, "epochs=1"], tmp_path / "measured"))
    size = (tmp_path / "measured/checkpoints/last.ckpt").stat().st_size
    folder = disk(int(1.5 * size))
    with pytest.raises(OSError, match="No space left on device") as raised:
        train.main(compose_command("train", [*options, "epochs=3"], folder / "run"))
    last = folder / "run/checkpoints/last.ckpt"
    assert raised.value.filename == str(last)
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert read_record(folder / "run", last).epochs == 3
    assert sorted(path.name for path in (folder / "run").rglob("*")) == ["checkpoints", "last.ckpt", "train.yaml"]


def test_a_disk_that_is_full_when_an_error_ends_the_training(disk, tmp_path):
    folder = disk("100k")
    with (folder / "other").open("wb", buffering=0) as other, pytest.raises(OSError, match="No space left on device"):
        while True:
            other.write(bytes(4096))
    with pytest.raises(OSError, match="No space left on device") as raised:
        fit_until_an_error(of_run(folder, lr=1), folder)
    assert raised.value.filename == str(folder / "last.ckpt")
    assert sorted(path.name for path in folder.iterdir()) == ["other"]


def test_a_disk_that_is_full_before_anything_is_trained(disk):
    folder = disk("8k")
    with pytest.raises(OSError, match="No space left"):
        (folder / "other").write_bytes(bytes(9000))
    with pytest.raises(OSError, match="No space left") as raised, held(folder):
        pass
    assert raised.value.filename == str(folder)


def test_lightning_needs_no_temporary_folder(tmp_path, monkeypatch):
    """Of its ways: after an epoch, when an error ends the training, and where a checkpoint replaces one to remove."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match="channels"):
        fit_until_an_error(of_run(tmp_path, lr=1), tmp_path)
    assert origin_of(tmp_path / "last.ckpt")["run"]
    best_k = ModelCheckpoint(tmp_path / "best", filename="epoch_{epoch:04d}", auto_insert_metric_name=False)
    fit(model(), [pair(3)], tmp_path, max_epochs=3, plugins=[of_run(tmp_path, lr=1)], **callback(best_k))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["epoch_0002.ckpt"]


def fit_until_an_error(saving, folder):
    last = ModelCheckpoint(folder, filename="last", save_on_exception=True)
    fit(model(), [pair(3), pair(2)], folder, plugins=[saving], **callback(last))


def callback(checkpoints):
    return {"enable_checkpointing": True, "callbacks": [checkpoints]}


def model():
    return pix2pix(TinyGenerator(), TinyDiscriminator())


def pair(channels):
    return Batch(["x"], torch.zeros(1, channels, 16, 16), torch.zeros(1, 3, 16, 16))


@pytest.fixture
def earlier(tmp_path):
    """What an earlier run left, and a file of the user; returns the folder of the checkpoints."""
    saving = of_run(tmp_path, lr=1)
    folder = tmp_path / "checkpoints"
    for name in ("last", "best", "epoch_0007"):
        save(saving, {"epoch": 7}, folder / f"{name}.ckpt")
    (folder / "mine.ckpt").write_bytes((folder / "best.ckpt").read_bytes())
    return folder


def names(folder):
    return sorted(path.stem for path in folder.iterdir())


def test_the_first_checkpoint_of_a_new_run_removes_those_of_the_earlier_one(earlier):
    run_dir = earlier.parent
    saving = of_run(run_dir, lr=2)
    assert names(earlier) == ["best", "epoch_0007", "last", "mine"]
    for name, left in (("last", ["last", "mine"]), ("best", ["best", "last", "mine"])):
        save(saving, {"epoch": 0}, earlier / f"{name}.ckpt")
        assert names(earlier) == left
        assert read_record(run_dir, earlier / f"{name}.ckpt").lr == 2
    assert read_record(run_dir, earlier / "mine.ckpt").lr == 1
    assert read_record(run_dir).lr == 2


def test_a_resumed_run_keeps_its_checkpoints_each_with_the_settings_it_was_trained_with(earlier):
    run_dir = earlier.parent
    save(of_run(run_dir, lr=2, resumed=earlier / "last.ckpt"), {"epoch": 8}, earlier / "last.ckpt")
    assert names(earlier) == ["best", "epoch_0007", "last", "mine"]
    assert find_checkpoint(run_dir, "best") == earlier / "best.ckpt"
    assert [read_record(run_dir, earlier / f"{name}.ckpt").lr for name in ("last", "best")] == [2, 1]


def test_a_run_of_an_early_version_is_resumed_and_keeps_its_checkpoints(tmp_path):
    for name in ("last", "best"):
        torch.save({"epoch": 7}, tmp_path / f"{name}.ckpt")
    (tmp_path / "train.yaml").write_text("generator: 1\nlr: 1\n")
    assert read_record(tmp_path, tmp_path / "best.ckpt").lr == 1
    save(of_run(tmp_path, lr=2, resumed=tmp_path / "last.ckpt"), {"epoch": 8}, tmp_path / "last.ckpt")
    assert names(tmp_path) == ["best", "last", "train"]
    save(of_run(tmp_path, lr=3), {"epoch": 0}, tmp_path / "last.ckpt")
    assert names(tmp_path) == ["last", "train"]


@pytest.mark.parametrize("first", ["last", "best"])
@pytest.mark.parametrize("place", ["before the first checkpoint", "before the record", "before the old ones go"])
def test_a_kill_while_a_new_run_replaces_an_earlier_one(earlier, place, first, monkeypatch):
    run_dir, other = earlier.parent, {"last": "best", "best": "last"}[first]
    where = {"before the first checkpoint": (torch, "save"), "before the record": (atomic, "write")}
    where["before the old ones go"] = (type(run_dir), "unlink")
    work = of_run(run_dir, lr=2)
    killed_at(*where[place], monkeypatch, lambda: save(work, {"epoch": 0}, earlier / f"{first}.ckpt"))
    of = {name: read_record(run_dir, earlier / f"{name}.ckpt").lr for name in (first, other, "epoch_0007", "mine")}
    new = place != "before the first checkpoint"
    assert of == {first: 1 + new, other: 1, "epoch_0007": 1, "mine": 1}
    assert read_record(run_dir).lr == 1 + new
    assert find_checkpoint(run_dir, first) == earlier / f"{first}.ckpt"
    if new:
        with pytest.raises(ValueError, match=rf"{other}\.ckpt belongs to an earlier run than .* use ckpt_path={first}"):
            find_checkpoint(run_dir, other)
        resumed = of_run(run_dir, lr=2, resumed=earlier / f"{first}.ckpt")
        save(resumed, {"epoch": 1}, earlier / f"{first}.ckpt")
        assert names(earlier) == [first, "mine"]
    else:
        assert find_checkpoint(run_dir, other) == earlier / f"{other}.ckpt"


def test_a_record_that_the_user_changed_counts(earlier):
    record = earlier.parent / "train.yaml"
    record.write_text(record.read_text().replace("lr: 1", "lr: 5"))
    assert read_record(earlier.parent, earlier / "best.ckpt").lr == 5
