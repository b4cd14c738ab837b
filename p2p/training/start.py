"""Starting from the networks of an earlier run: the same ones, or those of half the side for a larger generator."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.fabric.utilities import rank_zero_only
from torch import nn

from p2p.deploy.export import check_finite
from p2p.models.local_enhancer import LocalEnhancer
from p2p.run.checkpoint import newest_checkpoint

say = rank_zero_only(print)
Weights = dict[str, torch.Tensor]


def find_start(init_from: str | None, *, init_discriminator_from: str | None) -> Path | None:
    """The checkpoint that they name; None for nothing, and for a file of the reference.

    Args:
        init_from: a run's folder, of which its last checkpoint is taken, or a checkpoint.
        init_discriminator_from: of the reference alone.

    Raises:
        ValueError: the folder is of no run, or there is no such checkpoint, or it is given another discriminator.
    """
    if init_from is None:
        return None
    path = Path(init_from)
    if path.is_dir():
        path = newest_checkpoint(path)
        if not path.is_file():
            raise ValueError(f"init_from={init_from} is no run: its checkpoints/last.ckpt is missing")
    elif not path.is_file() and path.suffix != ".pth":
        raise ValueError(
            f"init_from={path} does not exist: use a run's folder, a checkpoint or a .pth of"
            " pytorch-CycleGAN-and-pix2pix"
        )
    elif path.suffix != ".ckpt":
        return None
    if init_discriminator_from is not None:
        raise ValueError(
            f"init_discriminator_from={init_discriminator_from} goes with a .pth of pytorch-CycleGAN-and-pix2pix, and"
            f" {path} has a discriminator of its own: leave it out"
        )
    return path


def start_from_run(model: nn.Module, path: Path) -> None:
    """Fill the model's networks with a checkpoint's, and say with which.

    A generator of `generator=global` becomes the coarse part of a `LocalEnhancer`. A discriminator of other settings is
    not used, but one of fewer scales is: they are the coarsest of the new one.

    Raises:
        ValueError: it is no checkpoint, or its generator is another.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        theirs = {part: _of(part, state) for part in ("generator", "discriminator")}
    except Exception as error:  # whatever a foreign or damaged file makes the unpickler say
        raise ValueError(f"init_from={path} is not a checkpoint of p2p, or is damaged") from error
    generator, discriminator = model.generator, model.discriminator
    if _shapes(theirs["generator"]) == _shapes(generator.state_dict()):
        generator.load_state_dict(theirs["generator"])
        used = "the generator"
    elif isinstance(generator, LocalEnhancer) and _holds(theirs["generator"], generator.coarse.state_dict()):
        generator.coarse.load_state_dict({name: theirs["generator"][name] for name in generator.coarse.state_dict()})
        used = "the generator at half the side"
    else:
        raise ValueError(
            f"init_from={path} holds another generator than this one: use its generator= and settings, or"
            " generator=local_enhancer to continue from generator=global, of twice its generator.width"
        )
    check_finite(generator, path)
    if discriminator is not None and theirs["discriminator"]:
        if _holds(discriminator.state_dict(), theirs["discriminator"]):
            discriminator.load_state_dict(theirs["discriminator"], strict=False)
            used += " and the discriminator"
        else:
            used += "; the discriminator starts from random weights, because the file has one of other settings"
    say(f"{path}: {used}")


def _of(part: str, state: Weights) -> Weights:
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}


def _holds(weights: Weights, some: Weights) -> bool:
    return _shapes(some).items() <= _shapes(weights).items()
