"""A part of the generator that was trained before waits until the rest has learnt something."""

from __future__ import annotations

from lightning import Callback, LightningModule, Trainer
from torch import nn


class Freeze(Callback):
    """Leaves a part of the generator as it is in the first epochs (`--niter_fix_global` of pix2pixHD).

    The average of `EMA` and norms that keep running averages go on. The optimizer makes its state for these weights
    when they are trained first.

    Args:
        part: the name of a module of the generator.
        epochs: how many of them; 0 trains all from the start.
        start: what the part was trained by before, see init_from.

    Raises:
        ValueError: nothing was trained before, or, when training begins, the generator has no such part.
    """

    def __init__(self, *, part: str = "coarse", epochs: int = 10, start: str | None = None):
        if start is None:
            raise ValueError(
                f"callbacks.freeze keeps the generator's {part} as it is, and that is random without init_from: name"
                " the run of experiment=hd_global, as in init_from=runs/default, or leave it out by ~callbacks.freeze"
            )
        self._part = part
        self._epochs = epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the part."""
        self._find(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze it, before the step is recorded as a CUDA graph; a resumed run goes by the epochs it had."""
        self._find(pl_module).requires_grad_(trainer.current_epoch >= self._epochs)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train it, too, from now on; a recorded step does not know of it."""
        part = self._find(pl_module)
        if trainer.current_epoch >= self._epochs and not all(weight.requires_grad for weight in part.parameters()):
            part.requires_grad_(True)
            pl_module.record_anew()

    def _find(self, pl_module: LightningModule) -> nn.Module:
        parts = dict(pl_module.generator.named_children())
        if self._part not in parts:
            raise ValueError(
                f"callbacks.freeze.part={self._part} is no part of a {type(pl_module.generator).__name__}: use one of"
                f" {', '.join(parts)}, or leave it out by ~callbacks.freeze"
            )
        return parts[self._part]
