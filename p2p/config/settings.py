"""Check the values of a command's settings before it does any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache
from types import NoneType
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p.config.annotations import argument_kinds
from p2p.config.known import split_override
from p2p.config.paths import settle_paths
from p2p.config.ranges import ranges_of
from p2p.config.shown import as_typed, nearest
from p2p.image_size import height_and_width
from p2p.run.leaves import leaves

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    list: "a list",
    NoneType: "null",
}
# Of numbers, each in a range.
PAIRS_OF_SIDES = ("min_size", "opt_size", "max_size", "*image_size", "*load_size")
LISTS = ("optimizer.betas", "data.percentiles", *PAIRS_OF_SIDES)
NUMBERS = {bool, int, float}
MODES = ("min", "max")  # of a score: lower or higher is better
# At the root, where nothing is annotated, what the default does not tell.
AT_THE_ROOT: dict[str, set[Any]] = {
    **{key: {str, NoneType} for key in ("weights", "norm_stats", "layout", "pages")},
    "devices": {int, str, list},
    "hosts": {str, list, NoneType},
    "image_size": {int, list},
    "size": {int, str, list},
}
MAY_BE_NULL = {"cache_dir"}  # although its default is a word, and it is no argument of a class


def check_settings(cfg: DictConfig, *, config_name: str, overrides: list[str]) -> None:
    """Check a command's config, inside the command, where Hydra can compose.

    Args:
        cfg: as composed.
        config_name: the command's primary config.
        overrides: of the command line, of which those that choose an option of a group also shape the defaults.

    Raises:
        ValueError: a value is of another type than its default, out of range, or a word that is not known.
    """
    settle_paths(cfg)
    settle_channels(cfg)
    groups = GlobalHydra.instance().config_loader().list_groups("")
    choices = [override for override in overrides if split_override(override)[0] in groups]
    check_types(cfg, defaults_of(GlobalHydra.instance().hydra, config_name, tuple(choices)))
    check_ranges(cfg)
    check_modes(cfg)


@lru_cache(maxsize=16)
def defaults_of(current: Hydra, config_name: str, choices: tuple[str, ...]) -> DictConfig:
    """The config with these options of groups and no other setting, made once for all jobs of a sweep.

    `current` is Hydra's instance, of which each command has its own: one that comes later reads conf/ anew.
    """
    return hydra.compose(config_name, overrides=[*choices])


def settle_channels(cfg: DictConfig) -> None:
    """Give inputs that hold labels as many channels as there are, and one for their instances' edges."""
    data = cfg.get("data")
    if data is not None and type(labels := data.get("labels")) is int:
        data.input_channels = labels + (data.get("edges") is True)


def check_types(cfg: DictConfig, defaults: DictConfig) -> None:
    """Compare every number and switch with the type of its default, and with the annotation where it is an argument.

    A whole number will do for a fraction, and null where the argument of the node's `_target_` may be None. Of a
    default that is null the annotation alone decides. Which words there are is left to the code that takes them.

    Raises:
        ValueError: the first value that is of another type, and what would do.
    """
    for path, value in leaves(OmegaConf.to_container(cfg, resolve=False)):
        if value == "???":  # of a _partial_ node Hydra would leave it out
            raise ValueError(f"{path} has no value: give it one, as in {path}=...")
        if isinstance(value, str) and "${" in value:
            continue
        default = _resolved(defaults, path)
        parent = path.rpartition(".")[0] if default is None else ""
        if parent and type(_resolved(defaults, parent)) in (int, float):  # {a: 1} in the place of a number
            raise ValueError(f"{parent}={as_typed(_resolved(cfg, parent))} is not valid: use a number")
        if (type(value), value) == (type(default), default):
            continue
        if isinstance(default, dict) and default and not isinstance(value, dict):
            raise ValueError(
                f"{path}={as_typed(value)} is not valid: write {path}.key=value to set what is in it, or ~{path} to"
                " leave it out"
            )
        kinds = AT_THE_ROOT.get(path) or _argument(cfg, path)
        if Callable in kinds:
            raise ValueError(f"{path}={as_typed(value)} is not valid: give it a _target_, as the options in conf/ have")
        if isinstance(default, list) and default and type(default[0]) in NUMBERS and NoneType not in kinds:
            inner = {type(each) for each in default}
            if not isinstance(value, list) or not all(_fits(each, inner) for each in value):
                raise ValueError(
                    f"{path}={as_typed(value)} is not valid: use a list of numbers, such as {as_typed(default)}"
                )
        if default is not None:
            kinds = kinds | {type(default)}
        # 0 and false would count as null; loggers take numbers for words.
        no_number = default is None and kinds == {str, NoneType} and not path.startswith("logger.")
        no_word = isinstance(default, str) and isinstance(value, (NoneType, bool, list, dict))
        if (
            (kinds & NUMBERS or no_number or (no_word and path not in MAY_BE_NULL))
            and Any not in kinds
            and not _fits(value, kinds)
        ):
            words = [word for kind, word in WORDS.items() if kind in kinds and not (kind is int and float in kinds)]
            example = "" if default is None else f", such as the default, {as_typed(default)}"
            raise ValueError(f"{path}={as_typed(value)} is not valid: use {' or '.join(words)}{example}")


def check_ranges(cfg: DictConfig) -> None:
    """Compare every number with `p2p.config.ranges`; NaN and infinity are out of every range.

    Raises:
        ValueError: the first that is out of range.
    """
    found = leaves(OmegaConf.to_container(cfg, resolve=False))
    for path, value in sorted(found, key=lambda leaf: isinstance(leaf[1], str)):  # what is referred to comes first
        ranges = list(ranges_of(path))
        if ranges and isinstance(value, str):  # a reference, or a word where the default is null
            value = _resolved(cfg, path)
        if isinstance(value, list) and ranges and not any(fnmatchcase(path, pattern) for pattern in LISTS):
            raise ValueError(f"{path}={as_typed(value)} is not valid: use a number")
        if isinstance(value, list) and any(fnmatchcase(path, pattern) for pattern in PAIRS_OF_SIDES):
            height_and_width(value, key=path)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{path}={as_typed(value)} is not valid: use a finite number")
            for allowed in ranges:
                if isinstance(number, (str, bool, list, dict)):
                    raise ValueError(f"{path}={as_typed(value)} is not valid: use {allowed.words()}")
                if number is not None and not allowed.holds(number):
                    raise ValueError(f"{path}={as_typed(value)} is out of range: use {allowed.words()}")


def check_modes(cfg: DictConfig) -> None:
    """Refuse words for the better end of a score other than Lightning's and torch's.

    Raises:
        ValueError: the first such word, and what was meant.
    """
    found = dict(leaves(OmegaConf.to_container(cfg, resolve=False)))
    for path, value in found.items():
        parent, _, name = path.rpartition(".")
        of_a_score = path in ("monitor_mode", "scheduler.mode") or (name == "mode" and f"{parent}.monitor" in found)
        if of_a_score and value not in MODES and "${" not in str(value):
            raise ValueError(
                f"{path}={as_typed(value)} is not known{nearest(str(value), [*MODES])}: use {' or '.join(MODES)}"
            )


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
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        return set()
    return argument_kinds(node["_target_"], name)


def _fits(value: object, kinds: set[type]) -> bool:
    return type(value) in kinds or (type(value) is int and float in kinds)
