"""The checkpoints of the best epochs, beside best.ckpt."""

from __future__ import annotations

from lightning.pytorch.callbacks import ModelCheckpoint


class BestK(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which may go by the same score as another one.

    Lightning (2.6) tells two by their monitor, mode and intervals alone, and refuses two that are alike in these.
    """

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint."""
        return f"{super().state_key} as {self.filename}"
