"""The sequential pipeline as Lightning has it: a data loader, `Trainer.predict` and a callback that writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, Dataset

from p2p.data.pairs import Pair
from p2p.pipelines import strips
from p2p.pipelines.stages import Loaded, Stages


class Inputs(Dataset):
    """Loads a group of inputs an index, those of them that can be read."""

    def __init__(self, groups: list[list[Pair]], stages: Stages):
        self._groups, self._stages = groups, stages

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> list[Loaded]:
        return [image for pair in self._groups[index] if (image := self._stages.load(pair))]


class Translator(LightningModule):
    """The exported engine where Lightning expects a module."""

    def __init__(self, stages: Stages, batch_size: int):
        super().__init__()
        self._stages, self._batch_size = stages, batch_size

    def transfer_batch_to_device(self, batch: list[Loaded], device: torch.device, dataloader_idx: int) -> list[Loaded]:
        """Leave that to the stages."""
        return batch

    def predict_step(self, batch: list[Loaded], batch_idx: int) -> Sequence[np.ndarray]:
        """A frame for each image, `Files.output_dtype` (H, W, C)."""
        return self._stages.outputs(batch, batch_size=self._batch_size) if batch else ()


class Writer(BasePredictionWriter):
    """Writes each prediction as soon as it is there."""

    def __init__(self, stages: Stages):
        super().__init__(write_interval="batch")
        self._stages = stages

    def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx):
        """Save every frame of the prediction."""
        for image, frame_HWC in zip(batch, prediction, strict=True):
            self._stages.save(image.pair, frame_HWC, image.size)


def run(pairs: list[Pair], stages: Stages, *, batch_size: int) -> None:
    """Translate all pairs' inputs in order, `batch_size` at a time, after the engine's warm-up.

    Raises:
        KeyboardInterrupt: the one that ended it; every file that is there is whole.
    """
    if not pairs:
        return
    plan = stages.plan(pairs, batch_size=batch_size)
    inputs = Inputs(plan.whole(), stages)
    loader = DataLoader(inputs, batch_size=1, collate_fn=lambda groups: groups[0])
    trainer = Trainer(
        accelerator="gpu" if stages.engine.device.type == "cuda" else "cpu",
        devices=1,
        callbacks=[Writer(stages)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    stages.warmup(batch_size, images=len(pairs))
    try:
        with stages.clock("e2e", len(pairs)):  # Lightning keeps every output by default
            if len(inputs):
                trainer.predict(Translator(stages, batch_size), loader, return_predictions=False)
            for pair in plan.by_rows():
                strips.translate(pair, stages, batch_size=batch_size)
    except SystemExit as error:  # what Lightning makes of a KeyboardInterrupt
        raise error.__context__ or error from None
