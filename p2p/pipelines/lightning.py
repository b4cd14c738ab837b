"""The sequential pipeline as Lightning has it: a data loader, `Trainer.predict` and a callback that writes."""

from __future__ import annotations

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, Dataset

from p2p.batch import Batch
from p2p.data.pairs import Pair
from p2p.pipelines.stages import Stages


class Inputs(Dataset):
    """Loads one input an index; None where it cannot be read."""

    def __init__(self, pairs: list[Pair], stages: Stages):
        self._pairs, self._stages = pairs, stages

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Batch | None:
        return self._stages.load(self._pairs[index])


class Translator(LightningModule):
    """The exported engine where Lightning expects a module."""

    def __init__(self, stages: Stages):
        super().__init__()
        self._stages = stages

    def predict_step(self, batch: Batch | None, batch_idx: int) -> tuple[list[str], np.ndarray, list] | None:
        """Names, frames, uint8 (N, H, W, C), and the inputs' sizes; None for a batch of which nothing could be read."""
        return None if batch is None else (batch.names, self._stages.translate(batch.input_NCHW), batch.sizes)


class Writer(BasePredictionWriter):
    """Writes each prediction as soon as it is there."""

    def __init__(self, pairs: list[Pair], stages: Stages):
        super().__init__(write_interval="batch")
        self._stages = stages
        self._pairs = {pair.name: pair for pair in pairs}

    def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx):
        """Save every frame of the prediction under its name."""
        for name, frame_HWC, size in zip(*prediction or ((), (), ()), strict=True):
            self._stages.save(self._pairs[name], frame_HWC, size)


def run(pairs: list[Pair], stages: Stages, *, batch_size: int) -> None:
    """Translate all pairs' inputs in order, `batch_size` at a time, after the engine's warm-up.

    Raises:
        KeyboardInterrupt: the one that ended it; every file that is there is whole.
    """
    if not pairs:
        return
    loader = DataLoader(Inputs(pairs, stages), batch_size=batch_size, collate_fn=stages.collate)
    trainer = Trainer(
        accelerator="gpu" if stages.engine.device.type == "cuda" else "cpu",
        devices=1,
        callbacks=[Writer(pairs, stages)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    stages.warmup(batch_size, images=len(pairs))
    try:
        with stages.clock("e2e", len(pairs)):  # Lightning keeps every output by default
            trainer.predict(Translator(stages), loader, return_predictions=False)
    except SystemExit as error:  # what Lightning makes of a KeyboardInterrupt
        raise error.__context__ or error from None
