"""Every other file that replaces one: pictures, pages, timelines, weights, pairs."""

import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from p2p.codecs.pillow import Pillow
from p2p.commands import train
from p2p.commands.pair import pairs
from p2p.data.datamodule import PairedImages
from p2p.data.transforms.torchvision import Torchvision
from p2p.report import gallery, timeline
from p2p.run.checkpoint import write_checkpoint
from p2p.training.callbacks.samples import Samples
from p2p.training.pix2pix import Pix2Pix
from p2p.training.writer import writer_of
from tests.conftest import picture
from tests.faults.test_checkpoints import QUICK
from tests.report.test_timeline import overlapped, timeline_of
from tests.test_configs import compose_command
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, pix2pix


def draw_samples(folder, root, *, epoch=1, samples=None):
    samples = samples or Samples(folder=str(folder), count=1)
    trainer = SimpleNamespace(
        current_epoch=epoch - 1,
        global_step=7,
        is_global_zero=True,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        datamodule=PairedImages(root=str(root), transform=Torchvision(image_size=32)),
        loggers=[],
        callbacks=[],
    )
    samples.on_validation_end(trainer, pix2pix(TinyGenerator(), TinyDiscriminator()))
    writer_of(trainer).wait()


def draw_gallery(folder, root):
    frame = np.zeros((8, 8, 3), np.uint8)
    gallery.write([gallery.Entry("x", frame, frame)], folder, title="t", count=1, total=1)


def draw_edges(folder, root):
    photos = folder.parent / "photos"
    if not photos.is_dir():
        photos.mkdir()
        picture(64, 64).save(photos / "x.png")
    pairs.edges(photos, pairs.Writing(folder, Pillow(format="png", quality=95)))


WRITERS = {
    "samples": draw_samples,
    "gallery": draw_gallery,
    "timeline": lambda folder, root: timeline.write(timeline_of(overlapped()), folder),
    "weights": lambda folder, root: write_checkpoint(folder / "latest_net_G.pth", {"weight": torch.zeros(1000)}),
    "pairs": draw_edges,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_leaves_the_file_before_it(name, tmp_path, pair_folder):
    """It fails in mid-file, by the limit that the system sets for the size of a file."""
    folder = tmp_path / "out"
    folder.mkdir()
    WRITERS[name](folder, pair_folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as raised:
            WRITERS[name](folder, pair_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename in map(str, folder.iterdir())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_pictures_of_an_earlier_run_are_removed_with_the_first_new_one(tmp_path, pair_folder):
    folder = tmp_path / "run/samples"
    folder.mkdir(parents=True)
    for name in ("epoch_0001.png", "epoch_0003.png", "epoch_0009.png", "mine.png", "epoch_3_copy.png"):
        (folder / name).touch()
    samples = Samples(folder=str(folder), count=1)
    for epoch in (3, 4):
        draw_samples(folder, pair_folder, epoch=epoch, samples=samples)
    kept = ["epoch_3_copy.png", "mine.png"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*kept, "epoch_0003.png", "epoch_0004.png"])


@pytest.mark.parametrize("here", [True, False])
def test_a_resumed_run_keeps_the_pictures_of_its_earlier_epochs(here, tmp_path, pair_folder):
    folder = tmp_path / "run/samples"
    folder.mkdir(parents=True)
    for epoch in (1, 2, 9):
        (folder / f"epoch_000{epoch}.png").touch()
    samples = Samples(folder=str(folder), count=1)
    checkpoint = tmp_path / ("run" if here else "other") / "checkpoints/last.ckpt"
    samples.on_fit_start(SimpleNamespace(ckpt_path=checkpoint), None)
    draw_samples(folder, pair_folder, epoch=3, samples=samples)
    epochs = [1, 2, 3] if here else [3]
    assert sorted(path.name for path in folder.iterdir()) == [f"epoch_000{epoch}.png" for epoch in epochs]


def test_missing_training_pairs_are_found_before_the_first_validation(tmp_path, pair_folder, monkeypatch, capsys):
    """And before a line says that the checkpoints of an earlier run will be replaced."""
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.ckpt").touch()
    monkeypatch.setattr(Pix2Pix, "validation_step", lambda *_: pytest.fail("it validates"))
    for path in (pair_folder / "train").iterdir():
        path.unlink()
    cfg = compose_command("train", [*QUICK, f"data.root={pair_folder}"], tmp_path / "run")
    with pytest.raises(ValueError, match="train"):
        train.main(cfg)
    (pair_folder / "train").rmdir()
    with pytest.raises(ValueError, match=r"there is no .*train"):
        train.main(cfg)
    assert "replaced" not in capsys.readouterr().out


def test_a_training_that_would_save_nothing_is_refused(tmp_path, pair_folder):
    options = [*QUICK, f"data.root={pair_folder}", "~callbacks.last", "~callbacks.best"]
    with pytest.raises(ValueError, match=r"no callback saves checkpoints.*leave callbacks\.last in"):
        train.main(compose_command("train", options, tmp_path / "run"))


def test_a_last_checkpoint_by_lightning_is_refused(tmp_path, pair_folder):
    options = [*QUICK, f"data.root={pair_folder}", "+callbacks.best.save_last=link"]
    with pytest.raises(ValueError, match=r"^callbacks\.best\.save_last=link is not supported: leave it out"):
        train.main(compose_command("train", options, tmp_path / "run"))


@pytest.mark.parametrize("setting", ["last.filename=null", "best.filename=other", "last.dirpath=elsewhere"])
def test_the_last_and_the_best_are_saved_where_the_commands_look_for_them(setting, tmp_path, pair_folder):
    options = [*QUICK, f"data.root={pair_folder}", f"callbacks.{setting}"]
    with pytest.raises(ValueError, match=rf"callbacks\.{setting[:4]} saves .*{setting[:4]}\.ckpt, where the other"):
        train.main(compose_command("train", options, tmp_path / "run"))
    assert not list((tmp_path / "run").rglob("*.ckpt"))
