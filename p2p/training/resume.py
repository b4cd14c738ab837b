"""Check a checkpoint before a run continues from it."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from p2p.system.plural import counted


def read_checkpoint(path: Path) -> dict:
    """What train.py saved, without running code of it; tensors are read when they are used.

    Raises:
        ValueError: it is none, is damaged, or holds only weights.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        networks, loops = checkpoint["state_dict"], checkpoint["loops"]["fit_loop"]
        found = isinstance(networks, dict) and isinstance(loops["epoch_progress"], dict)
    except Exception:  # whatever a foreign or damaged file makes the unpickler say
        found = False
    if not found:
        hint = ", or start from a .pth of pytorch-CycleGAN-and-pix2pix with init_from=" if path.suffix == ".pth" else ""
        raise ValueError(
            f"{path} is not a checkpoint of p2p, or is damaged: continue from another, such as ckpt_path=best{hint}"
        )
    if not checkpoint.get("optimizer_states"):
        raise ValueError(f"{path} holds only weights, which can be exported but not trained further")
    return checkpoint


def check_networks(checkpoint: dict, path: Path, model: nn.Module) -> None:
    """Compare the names and shapes of weights.

    Raises:
        ValueError: the checkpoint is of another generator or discriminator than the model's.
    """
    theirs, ours = (
        {name: tuple(value.shape) for name, value in weights.items()}
        for weights in (checkpoint["state_dict"], model.state_dict())
    )
    for part in ("generator", "discriminator"):
        if _of(part, theirs) != _of(part, ours):
            raise ValueError(
                f"{path} was trained with another {part}: leave out what changes it, or leave ckpt_path out to start"
                " anew"
            )


def check_that_something_is_left(checkpoint: dict, trainer: Trainer) -> None:
    """Compare how far the run got with how far it is to go.

    Raises:
        ValueError: it has ended, and how to go on.
    """
    done, epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], trainer.max_epochs
    if epochs is not None and 0 <= epochs <= done:
        raise ValueError(
            f"epochs={epochs} leaves nothing to train, because {counted(done, 'is', 'are')} done: use more, such as"
            f" epochs={2 * done}"
        )
    for callback in trainer.early_stopping_callbacks:
        state = checkpoint["callbacks"].get(callback.state_key, {})
        if state.get("wait_count", 0) >= callback.patience:
            raise ValueError(_stopped_early(callback, state))


def _stopped_early(callback: EarlyStopping, state: dict) -> str:
    return (
        f"early stopping ended this run after epoch {state['stopped_epoch'] + 1}, because {callback.monitor} did not"
        f" improve in {counted(state['wait_count'], 'validation')}: use a larger"
        f" callbacks.early_stopping.patience, such as {2 * callback.patience}, or ~callbacks.early_stopping"
    )


def _of(part: str, shapes: dict[str, tuple]) -> dict[str, tuple]:
    return {name: shape for name, shape in shapes.items() if name.startswith(f"{part}.")}
