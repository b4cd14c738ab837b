"""The networks as .pth files of pytorch-CycleGAN-and-pix2pix, the reference, every few epochs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from p2p.deploy.rewrite import fold_resize
from p2p.interop.files import NetworkFiles, network_files
from p2p.interop.reference import Weights
from p2p.run.checkpoint import write_checkpoint
from p2p.training.callbacks.progress import epochs_of
from p2p.training.leftovers import remove_leftovers
from p2p.training.snapshot import snapshot
from p2p.training.writer import writer_of


class ReferenceWeights(Callback):
    """Writes `latest_net_G.pth` and `latest_net_D.pth`, and copies named by the epoch, such as `5_net_G.pth`.

    The reference writes the same files for its `--save_epoch_freq`. They are written after the validation, beside the
    training, atomically. The weights are those that the run is validated with: with callbacks=ema their average. A
    discriminator that the reference does not have is left out. With the first files, those that an earlier run left in
    the folder are removed.

    Args:
        folder: where the files go, inside the run's.
        every_n_epochs: epochs between two writes; also after the last of epochs=, but not where a run ends earlier.
        numbered: also write those named by the epoch.

    Raises:
        ValueError: when training begins: the reference has no such generator.
    """

    def __init__(self, *, folder: str, every_n_epochs: int = 5, numbered: bool = True):
        if every_n_epochs < 1:
            raise ValueError(
                f"callbacks.reference_weights.every_n_epochs={every_n_epochs} is out of range: use 1 or more"
            )
        self._folder = Path(folder)
        self._every_n_epochs = every_n_epochs
        self._numbered = numbered
        self._resumed: Path | None = None
        self._written = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse before any work what cannot be written, and say what is left out."""
        if stage != TrainerFn.FITTING:
            return
        try:
            files = self._files(pl_module)
        except ValueError as error:
            raise ValueError(f"callbacks=reference_weights cannot be used: {error}") from error
        if files.left_out is not None and trainer.is_global_zero:
            print(f"no latest_net_D.pth: {files.left_out}")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the run goes on from."""
        self._resumed = Path(trainer.ckpt_path) if trainer.ckpt_path else None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights, while EMA has its average in place, and have them written."""
        epoch = trainer.current_epoch + 1
        due = epoch % self._every_n_epochs == 0 or epoch == epochs_of(trainer)
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not trainer.is_global_zero or not due:
            return
        weights, wait = snapshot(self._files(pl_module).weights)
        writer_of(trainer).submit(partial(self._write, weights, wait, epoch=epoch))

    @torch.no_grad()
    def _files(self, pl_module: LightningModule) -> NetworkFiles:
        return network_files(fold_resize(pl_module.generator), lambda: pl_module.discriminator, self._folder)

    def _write(self, weights: dict[str, Weights], wait: Callable[[], None], *, epoch: int) -> None:
        """In the writer's thread."""
        wait()
        self._folder.mkdir(parents=True, exist_ok=True)
        for letter, state in weights.items():
            for name in ["latest", str(epoch)] if self._numbered else ["latest"]:
                write_checkpoint(self._folder / f"{name}_net_{letter}.pth", state)
        if not self._written:
            if "D" not in weights:
                (self._folder / "latest_net_D.pth").unlink(missing_ok=True)
            remove_leftovers(self._folder, r"(\d+)_net_[GD]\.pth", epoch=epoch, resumed=self._resumed)
            self._written = True
