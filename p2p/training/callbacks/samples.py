"""Sample pictures of the generator during training."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from p2p.batch import Batch, to_frames
from p2p.report.picture import contact_sheet, spread
from p2p.system.atomic import replacing
from p2p.training.leftovers import remove_leftovers
from p2p.training.snapshot import snapshot
from p2p.training.writer import writer_of


def summary(sheet: Image.Image) -> Summary:
    """A picture for TensorBoard, as JPEG.

    It adds a checksum in a loop of Python over every byte. For the PNG of `add_image`, 0.8 MB, that takes 0.3 s, in
    which the thread that trains waits for Python's lock again and again: 0.25 s an epoch on an H200.
    """
    sheet.save(jpeg := io.BytesIO(), "JPEG", quality=90)
    image = Summary.Image(height=sheet.height, width=sheet.width, colorspace=3, encoded_image_string=jpeg.getvalue())
    return Summary(value=[Summary.Value(tag="samples", image=image)])


class Samples(Callback):
    """After validation, a picture of input, output and target for the same few validation pairs.

    Of images with many channels it shows the first three, of two channels the first, as grey.
    Drawn beside the training and written as `epoch_0001.png`, ... and to every logger that takes images: TensorBoard,
    Weights & Biases, MLflow. With the first one, pictures that an earlier run left in the folder are removed.

    Args:
        folder: where the pictures go.
        count: pairs in a picture; 0 for no picture.
        every_n_epochs: epochs between two pictures.
    """

    def __init__(self, *, folder: str, count: int = 4, every_n_epochs: int = 1):
        self._folder = Path(folder)
        self._count = count
        self._every_n_epochs = every_n_epochs
        self._shown: list[Batch] = []
        self._drawn = False
        self._resumed: Path | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the run goes on from."""
        self._resumed = Path(trainer.ckpt_path) if trainer.ckpt_path else None

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Translate, and have the rest done."""
        epoch = trainer.current_epoch + 1
        if trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero or epoch % self._every_n_epochs:
            return
        if not self._count:
            return
        if not self._shown:
            dataset = trainer.datamodule.dataset("val")
            self._shown = [dataset[index].to(pl_module.device) for index in spread(range(len(dataset)), self._count)]
        rows, wait = snapshot([self._row(image, pl_module) for image in self._shown])
        draw = partial(self._draw, rows, wait, epoch=epoch, step=trainer.global_step, loggers=trainer.loggers)
        writer_of(trainer).submit(draw)

    def _draw(
        self,
        rows: list[list[torch.Tensor]],
        wait: Callable[[], None],
        *,
        epoch: int,
        step: int,
        loggers: list[Logger],
    ) -> None:
        """Draw the frames that are there after `wait`, and write."""
        wait()
        frames = [[frame_HWC.numpy() for frame_HWC in row] for row in rows]
        sheet = contact_sheet(frames, header=["input", "output", "target"])
        with suppress(RuntimeError):  # of a GPU that has failed since, which the next step says
            wait()
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._folder / f"epoch_{epoch:04d}.png") as new:
            sheet.save(new, "PNG")
        if not self._drawn:
            remove_leftovers(self._folder, r"epoch_(\d{4,})\.png", epoch=epoch, resumed=self._resumed)
            self._drawn = True
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples", [sheet], step=step)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_image(logger.run_id, sheet, artifact_file=f"samples/epoch_{epoch:04d}.png")
            elif isinstance(logger, TensorBoardLogger):
                # As add_image does it: it opens another file where a training that was stopped has closed the first.
                logger.experiment._get_file_writer().add_summary(summary(sheet), step)

    def _row(self, image: Batch, pl_module: LightningModule) -> list[torch.Tensor]:
        """One at a time: transform.preprocess=none leaves images of different sizes."""
        columns = (image.input_NCHW, pl_module(image.input_NCHW), image.target_NCHW)
        return [to_frames(column)[0] for column in columns]
