"""An average of the generator's weights over the latest steps: smoother than any one of them."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn

from p2p.batch import Batch

KEY = "ema"


class EMA(Callback):
    """Exponential moving average of the generator (Karras et al. 2018, sec. 4.1: decay 0.999), without start bias.

    After n steps that left the weights p_1, ..., p_n it is the sum of decay^(n-k) p_k, divided by the sum of
    decay^(n-k): Adam's correction, so that the random start does not weigh on short runs. Buffers, such as
    BatchNorm's running averages, are copied as they are. Every checkpoint holds
    {"ema": {"steps": n, "generator": state dict}}, and the trained weights where they always are.

    Args:
        decay: share of the average that a step keeps, 0 to below 1.
        validate: validate and draw samples with the average; export then takes it, too.
    """

    def __init__(self, *, decay: float = 0.999, validate: bool = True):
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"callbacks.ema.decay={decay} is out of range: use 0 to below 1")
        self._decay = decay
        self._validate = validate
        self._steps = 0
        self._seen_global_step = 0
        self._average: dict[str, torch.Tensor] | None = None
        self._swapped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the checkpoint's average, or from the weights as they are."""
        if self._average is None:
            self._average = {name: value.detach().clone() for name, value in pl_module.generator.state_dict().items()}
        self._seen_global_step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Move towards the new weights, if this batch made a step."""
        if trainer.global_step == self._seen_global_step:
            return
        self._seen_global_step = trainer.global_step
        self._steps += 1
        weight = (1.0 - self._decay) / (1.0 - self._decay**self._steps)
        self._to_device(pl_module)
        parameters, values = dict(pl_module.generator.named_parameters()), pl_module.generator.state_dict()
        others = [name for name in values if name not in parameters]
        # All at once: a hundred launches would take a GPU's host as long as the whole captured step.
        torch._foreach_lerp_([self._average[name] for name in parameters], [values[n] for n in parameters], weight)
        if others:
            torch._foreach_copy_([self._average[name] for name in others], [values[name] for name in others])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the generator."""
        if self._validate and self._average is not None and not trainer.sanity_checking:
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it out again; in the config this callback stands behind those that draw."""
        if self._swapped:
            self._swap(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take it out before the last checkpoint is saved."""
        self.on_validation_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the average."""
        if self._average is not None:
            checkpoint[KEY] = {"steps": self._steps, "generator": self._average}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average; a checkpoint without one starts it anew."""
        if KEY in checkpoint:
            self._steps = checkpoint[KEY]["steps"]
            self._average = {name: value.clone() for name, value in checkpoint[KEY]["generator"].items()}

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        """Exchange contents, not tensors: optimizers and `inference_view` hold on to these."""
        self._to_device(pl_module)
        for name, value in pl_module.generator.state_dict().items():
            held = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(held)
        self._swapped = not self._swapped

    def _to_device(self, pl_module: LightningModule) -> None:
        generator: nn.Module = pl_module.generator
        self._average = {n: self._average[n].to(value.device) for n, value in generator.state_dict().items()}
