"""The networks in .pth files of pytorch-CycleGAN-and-pix2pix, the reference, as nodes of a config."""

from __future__ import annotations

from pathlib import Path

import hydra
from lightning.fabric.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import nn

from p2p.data.pairs import check_direction
from p2p.image_size import ImageSize
from p2p.interop import reference
from p2p.models.lab import LabUNet


def reference_record(path: Path, *, image_size: ImageSize | None, direction: str) -> DictConfig:
    """What the record would say, had train.py made this .pth of the reference, at batch 1 from the default data.

    Raises:
        ValueError: the file is no generator, image_size does not suit it, or the direction is not known.
    """
    check_direction(direction)
    found = reference.as_colorization(reference.recognize_generator(reference.read(path), path))
    record = hydra.compose("train", ["run_dir=unused"])
    record.image_size = image_size or found.arguments["image_size"]
    record.batch_size = 1
    record.data.direction = direction
    record.data.input_channels, record.data.target_channels = (
        found.arguments[key] for key in ("in_channels", "out_channels")
    )
    _adopt(record, "generator", found, path)
    return record


def start_from_reference(cfg: DictConfig) -> dict[str, tuple[Path, reference.Weights]]:
    """Make cfg's networks those of the .pth files that cfg.init_from and cfg.init_discriminator_from name.

    A `_net_D.pth` beside a `_net_G.pth` is found by itself; without one the discriminator stays as configured.
    Each file's network is said in one line.

    Returns:
        For "generator" and, if there are any, "discriminator", the file and its weights; nothing without cfg.init_from.

    Raises:
        ValueError: a file is none of the reference's, does not suit the data, or would not be used.
    """
    if cfg.init_discriminator_from is not None:
        typed = f"init_discriminator_from={cfg.init_discriminator_from}"
        if cfg.init_from is None:
            raise ValueError(f"{typed} needs the generator's file as well: add init_from=, or leave it out")
        if cfg.adversarial is None:
            raise ValueError(f"{typed} is of a discriminator, and adversarial=none trains none: leave one of them out")
    if cfg.init_from is None:
        return {}
    path = Path(cfg.init_from)
    start = {"generator": (path, reference.read(path))}
    found = reference.recognize_generator(start["generator"][1], path)
    if cfg.data.target_channels != found.arguments["out_channels"]:
        found = reference.as_colorization(found)
    channels = {"input_channels": found.arguments["in_channels"], "target_channels": found.arguments["out_channels"]}
    for key, value in channels.items():
        if cfg.data[key] != value:
            raise ValueError(f"{path} is a {found}, but data.{key}={cfg.data[key]}: set data.{key}={value}")
    _adopt(cfg, "generator", found, path)

    beside = path.with_name(path.name.replace("_net_G", "_net_D"))
    other = Path(cfg.init_discriminator_from or beside)
    if cfg.adversarial is None or not (cfg.init_discriminator_from or (beside != path and beside.is_file())):
        return start  # there is no discriminator to start, or no file for it
    if found.network is LabUNet:
        other_colours = "judges L, a and b, and here the discriminator judges RGB"
        if cfg.init_discriminator_from is not None:
            raise ValueError(f"{typed} {other_colours}: leave it out")
        rank_zero_only(print)(f"{other} is not used: it {other_colours}")
    else:
        start["discriminator"] = (other, reference.read(other))
        found = reference.recognize_discriminator(start["discriminator"][1], other, **channels)
        _adopt(cfg, "discriminator", found, other)
    return start


def load_start(model: nn.Module, start: dict[str, tuple[Path, reference.Weights]]) -> None:
    """Fill the model's networks with what `start_from_reference` has read.

    Raises:
        ValueError: a file's weights are of another network than the model's, and which file.
    """
    for part, (path, weights) in start.items():
        reference.load(getattr(model, part), weights, path)


def _adopt(cfg: DictConfig, part: str, found: reference.Architecture, path: Path) -> None:
    """Replace a network's node; dropout stays as configured where the weights do not tell of it."""
    found.check_image_size(cfg.image_size, path)
    dropout = {"dropout": cfg[part].dropout} if "dropout" in cfg[part] else {}
    cfg[part] = {**dropout, **found.config}
    rank_zero_only(print)(f"{path}: {found}")
