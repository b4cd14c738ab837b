"""What is saved beside the training."""

import io
import threading

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from p2p.batch import Batch
from p2p.system import atomic
from p2p.training.saving import Checkpoints
from p2p.training.snapshot import snapshot
from p2p.training.writer import Writer, writer_of
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix


def pairs(count):
    images = torch.rand(count, 2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return [Batch([str(index)], *pair) for index, pair in enumerate(images)]


def trained(folder, *savers, epochs=3, **options):
    """Train with these, and a `last` behind them; returns the trainer."""
    writer = Writer()
    last = ModelCheckpoint(folder, filename="last", mode="max", enable_version_counter=False)
    saving = Checkpoints(OmegaConf.create({"epochs": epochs}), folder, writer=writer)
    options |= {"enable_checkpointing": True, "callbacks": [writer, *savers, last], "plugins": [saving]}
    torch.manual_seed(0)
    val = DataLoader(pairs(2), batch_size=None)
    return fit(pix2pix(TinyGenerator(), TinyDiscriminator()), pairs(3), folder, val=val, max_epochs=epochs, **options)


def best(folder, **options):
    return ModelCheckpoint(folder, filename="best", monitor="val/L1", enable_version_counter=False, **options)


def test_what_is_saved_at_one_moment_is_one_file_that_knows_of_all(tmp_path):
    """Both scores get better with each epoch; the callback behind `best` changes its state after that is saved."""
    other = ModelCheckpoint(tmp_path, filename="psnr_{epoch}", monitor="val/PSNR", mode="max")
    trained(tmp_path, best(tmp_path), other)
    paths = [tmp_path / f"{name}.ckpt" for name in ("best", "psnr_epoch=2", "last")]
    assert sorted(tmp_path.glob("*.ckpt")) == sorted(paths) and all(path.samefile(paths[0]) for path in paths)
    saved = torch.load(paths[2], weights_only=True)
    known = {state["monitor"]: state["best_model_path"] for state in saved["callbacks"].values() if "monitor" in state}
    assert saved["epoch"] == 2 and known == {"val/L1": str(paths[0]), "val/PSNR": str(paths[1]), None: str(paths[2])}


def test_the_best_stays_when_the_last_goes_on(tmp_path):
    trained(tmp_path, ModelCheckpoint(tmp_path, filename="best", monitor="val/L1", mode="max"))  # the first epoch's
    epochs = {name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert epochs == {"best": 0, "last": 2}


def test_weights_alone_are_a_file_of_their_own(tmp_path):
    trained(tmp_path, best(tmp_path, save_weights_only=True))
    saved = {name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "last")}
    assert ["optimizer_states" in saved[name] for name in ("best", "last")] == [False, True]


def test_the_file_holds_what_was_there_when_it_was_saved(tmp_path):
    """Steps go on while a thread writes: this one waits until they have."""
    writer, path = Writer(), tmp_path / "last.ckpt"
    saving = Checkpoints(OmegaConf.create(), tmp_path, writer=writer)
    gate, weights, counts = threading.Event(), torch.ones(4, 3).t(), [1]
    writer.submit(gate.wait)
    saving.save_checkpoint({"weights": weights, "counts": counts}, path)
    writer.start()
    weights.zero_(), counts.append(2)
    gate.set()
    saving.teardown()
    saved = torch.load(path, weights_only=True)
    assert torch.equal(saved["weights"], torch.ones(3, 4)) and saved["weights"].stride() == weights.stride()
    assert saved["counts"] == [1]


def test_a_snapshot_is_the_same_to_torch_save(tmp_path):
    model = torch.nn.BatchNorm2d(3)
    state = {"model": model.state_dict(), "shared": [torch.arange(6).view(2, 3).t()] * 2, "pair": (1, {"x": None})}
    copied, wait = snapshot(state)
    wait()
    files = io.BytesIO(), io.BytesIO()
    for file, each in zip(files, (state, copied), strict=True):
        torch.save(each, file)
    assert files[0].getvalue() == files[1].getvalue()


def test_a_failure_ends_the_training_before_the_next_batch(tmp_path):
    def fail():
        raise OSError(28, "No space left on device", "x.ckpt")

    writer = Writer()
    writer.submit(fail)
    with pytest.raises(OSError, match=r"x\.ckpt"):
        fit(pix2pix(TinyGenerator(), TinyDiscriminator()), pairs(2000), tmp_path, callbacks=[writer])
    writer.wait()  # it is said once


def test_a_trainer_gets_one_writer(tmp_path):
    trainer = fit(pix2pix(TinyGenerator(), TinyDiscriminator()), pairs(1), tmp_path)
    assert writer_of(trainer) is writer_of(trainer)


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_of_a_file(links, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    source, path = tmp_path / "source", tmp_path / "path"
    source.write_text("new")
    path.write_text("old")
    for _ in range(2):  # the second time they are one file already
        atomic.link(source, path)
    assert path.read_text() == "new" and path.samefile(source) == links
    assert sorted(each.name for each in tmp_path.iterdir()) == ["path", "source"]
    with pytest.raises(OSError) as raised:
        atomic.link(tmp_path / "missing", path)
    assert path.read_text() == "new" and raised.value.filename in (str(path), str(tmp_path / "missing"))


def test_where_the_gpu_fails_what_is_being_written_is_finished(tmp_path):
    """Another error is for `teardown`, which then comes."""
    for error, there in (
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (ValueError("a bug"), False),
    ):
        writer, go_on, path = Writer(), threading.Event(), tmp_path / f"{there}"
        writer.submit(lambda go_on=go_on, path=path: path.write_text(str(go_on.wait(10))))
        writer.start()
        writer.submit(lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: device-side assert triggered")))
        threading.Timer(0.2, go_on.set).start()
        writer.on_exception(None, None, error)
        assert path.exists() == there
