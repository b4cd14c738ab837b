import io
from types import SimpleNamespace

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from p2p.data.datamodule import PairedImages
from p2p.data.transforms.torchvision import Torchvision
from p2p.training.callbacks.samples import Samples
from p2p.training.writer import writer_of
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, pix2pix


class FakeWandb(WandbLogger):
    def __init__(self):
        self.logged = []

    def log_image(self, key, images, step=None, **options):
        self.logged.append((key, images, step))


class FakeMlflow(MLFlowLogger):
    def __init__(self):
        self.logged = []

    run_id = "run"

    @property
    def experiment(self):
        return SimpleNamespace(log_image=lambda *args, **options: self.logged.append((args, options)))


def test_every_logger_gets_the_picture(tmp_path, pair_folder):
    board = TensorBoardLogger(save_dir=tmp_path, name="tensorboard")
    wandb, mlflow = FakeWandb(), FakeMlflow()
    trainer = SimpleNamespace(
        current_epoch=1,
        global_step=7,
        is_global_zero=True,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        datamodule=PairedImages(root=str(pair_folder), transform=Torchvision(image_size=32)),
        loggers=[board, wandb, mlflow],
        callbacks=[],
    )
    Samples(folder=str(tmp_path / "samples"), count=2).on_validation_end(
        trainer, pix2pix(TinyGenerator(), TinyDiscriminator())
    )
    writer_of(trainer).wait()
    picture = Image.open(tmp_path / "samples/epoch_0002.png")
    ((key, (sheet,), step),) = wandb.logged
    assert (key, step, sheet.size) == ("samples", 7, picture.size)
    (((run, sheet), options),) = mlflow.logged
    assert (run, sheet.size, options) == ("run", picture.size, {"artifact_file": "samples/epoch_0002.png"})
    board.experiment.flush()
    (logged,) = EventAccumulator(board.log_dir).Reload().Images("samples")
    shown = np.asarray(Image.open(io.BytesIO(logged.encoded_image_string)), dtype=float)
    assert (logged.step, logged.width, logged.height) == (7, *picture.size)
    assert np.abs(shown - np.asarray(picture)).mean() < 5  # as JPEG


def test_no_picture(tmp_path, pair_folder):
    trainer = SimpleNamespace(
        current_epoch=0, is_global_zero=True, state=SimpleNamespace(fn=TrainerFn.FITTING), callbacks=[]
    )
    Samples(folder=str(tmp_path / "samples"), count=0).on_validation_end(
        trainer, pix2pix(TinyGenerator(), TinyDiscriminator())
    )
    writer_of(trainer).wait()
    assert not (tmp_path / "samples").exists()
