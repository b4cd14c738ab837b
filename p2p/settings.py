"""What can be seen to be wrong with a command's settings before it does any work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

if TYPE_CHECKING:  # importing it takes seconds, which p2p.cli would add to every command
    from lightning import LightningModule, Trainer

# Of whole numbers at the root, which belong to no class that could check them: the smallest and the largest.
RANGES = {
    "seed": (0, 2**32 - 1),  # what NumPy takes
    "epochs": (1, None),
    "batch_size": (1, None),
    "image_size": (None, 8192),  # an image of this side has a first feature map of 4 GB; the networks know the smallest
    "images": (1, None),
    "gallery": (0, 1000),  # all of them are in one page, and in memory while it is made
}
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    list: "a list",
    NoneType: "null",
}
NUMBERS = {bool, int, float}


def check_settings(cfg: DictConfig, *, config_name: str, overrides: list[str]) -> None:
    """Check a command's config, inside the command, where Hydra can compose.

    Args:
        cfg: as composed.
        config_name: the command's primary config.
        overrides: of the command line, of which those that choose an option of a group also shape the defaults.

    Raises:
        ValueError: a value is of another type than its default, or out of range.
    """
    groups = GlobalHydra.instance().config_loader().list_groups("")
    choices = [override for override in overrides if re.match(r"[+~]*([^@=]+)", override)[1] in groups]
    check_types(cfg, hydra.compose(config_name, overrides=choices))
    check_ranges(cfg)


def check_types(cfg: DictConfig, defaults: DictConfig) -> None:
    """Compare every number and switch with the type of its default, and with the annotation where it is an argument.

    A whole number will do for a fraction, and null where the argument of the node's `_target_` may be None. Of a
    default that is null the annotation alone decides. Words are left to the code that knows which it takes.

    Raises:
        ValueError: the first value that is of another type, and what would do.
    """
    for path, value in _leaves(OmegaConf.to_container(cfg, resolve=False)):
        default = _resolved(defaults, path)
        if (type(value), value) == (type(default), default) or (isinstance(value, str) and "${" in value):
            continue
        kinds = _argument(cfg, path)
        if isinstance(default, list) and default and type(default[0]) in NUMBERS and NoneType not in kinds:
            inner = {type(each) for each in default}
            if not isinstance(value, list) or not all(_fits(each, inner) for each in value):
                raise ValueError(f"{path}={_shown(value)} cannot be: use a list of numbers, such as {_shown(default)}")
        if default is not None:
            kinds = kinds | {type(default)}
        if kinds & NUMBERS and Any not in kinds and not _fits(value, kinds):
            words = [word for kind, word in WORDS.items() if kind in kinds and not (kind is int and float in kinds)]
            example = "" if default is None else f", such as the default, {_shown(default)}"
            raise ValueError(f"{path}={_shown(value)} cannot be: use {' or '.join(words)}{example}")


def check_ranges(cfg: DictConfig) -> None:
    """Compare the whole numbers at the root with RANGES; null is what it may be.

    Raises:
        ValueError: the first that is out of range.
    """
    for key, (least, most) in RANGES.items():
        value = cfg.get(key)
        if value is None:
            continue
        if type(value) is not int:
            raise ValueError(f"{key}={_shown(value)} cannot be: use a whole number")
        if (least is not None and value < least) or (most is not None and value > most):
            allowed = f"{least} or more" if most is None else f"{most} or less"
            raise ValueError(
                f"{key}={value} is out of range: use {allowed if None in (least, most) else f'{least} to {most}'}"
            )


def check_strategy(trainer: Trainer, model: LightningModule) -> None:
    """Refuse several processes that would wait for gradients that a step of one network leaves out.

    Raises:
        ValueError: it is DDP as Lightning has it by itself, and there are two networks.
    """
    options = getattr(trainer.strategy, "_ddp_kwargs", None)  # of Lightning's DDPStrategy
    if options is None or options.get("find_unused_parameters") or model.discriminator is None:
        return
    raise ValueError(
        f"trainer.devices={trainer.num_devices} needs trainer=ddp, which knows that each step moves one of the two"
        f" networks: use trainer=ddp trainer.devices={trainer.num_devices}, or trainer.devices=1"
    )


def check_output(folder: Path, *, key: str = "output") -> None:
    """Make the folder that files are to be written to, before there are any.

    Raises:
        ValueError: there is a file of that name, or the folder cannot be made or written to; `key` names the setting.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{key}={folder} is a file: name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{key}={folder} cannot be made ({error.strerror}): name another folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{key}={folder} may not be written to: name another folder, or change its permissions")


def _leaves(node: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _resolved(cfg: DictConfig, path: str) -> object:
    """The plain value at a path; None where there is none, or it cannot be known yet."""
    try:
        value = OmegaConf.select(cfg, path)
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value


def _argument(cfg: DictConfig, path: str) -> set[type]:
    """The types that an argument of a node's `_target_` is annotated with; none where they cannot be told."""
    parent, _, name = path.rpartition(".")
    node = _resolved(cfg, parent) if parent else None
    if not isinstance(node, dict) or "_target_" not in node:
        return set()
    try:
        target = hydra.utils.get_object(node["_target_"])
        hint = get_type_hints(target.__init__ if isinstance(target, type) else target).get(name)
    except Exception:  # of whatever library that is; what is wrong with it is said when it is made
        return set()
    return set(_kinds(hint)) if hint is not None else set()


def _kinds(hint: object) -> Iterator[type]:
    """int, str and NoneType of `int | Literal["auto"] | None`."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for each in get_args(hint):
            yield from _kinds(each)
    elif origin is Literal:
        yield from map(type, get_args(hint))
    else:
        yield origin or hint


def _fits(value: object, kinds: set[type]) -> bool:
    return type(value) in kinds or (type(value) is int and float in kinds)


def _shown(value: object) -> str:
    """As on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
