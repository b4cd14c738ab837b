"""The settings of a run that continues: those of its record, changed by what is typed now."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from p2p.config.pasteable import command_line, run_settings
from p2p.config.shown import as_typed
from p2p.run.checkpoint import find_checkpoint
from p2p.run.leaves import leaves
from p2p.run.record import load_record, record_of

TODAYS = ("name", "run_dir", "ckpt_path")  # of the command line alone
PRESETS = ("experiment", "reconstruction")  # groups whose options set and choose what belongs to others
STARTS = ("init_from", "init_discriminator_from")  # of a run that starts anew


def checkpoint_to_resume(cfg: DictConfig) -> Path:
    """The file that cfg.ckpt_path names.

    Raises:
        ValueError: there is none, or it is of an earlier run.
    """
    path = find_checkpoint(Path(cfg.run_dir), cfg.ckpt_path)
    if path.is_dir():
        raise ValueError(
            f"ckpt_path={path} is a folder: name a checkpoint, such as the last.ckpt of runs/.../checkpoints"
        )
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path} to resume from: leave ckpt_path out to start anew")
    return path


def resumed_settings(cfg: DictConfig, typed: list[str]) -> DictConfig:
    """The record of the run, changed by what is typed; of a run without a record, cfg.

    A typed value replaces the run's, also where it equals the default. A typed option of a group, such as
    scheduler=cosine, replaces the run's whole node, and a typed preset all that it sets.

    Args:
        cfg: as composed from the defaults and what is typed, inside the command, where Hydra can compose.
        typed: the overrides.

    Raises:
        ValueError: there is no such checkpoint, its record cannot be read, or what is typed does not suit it.
    """
    path = record_of(checkpoint_to_resume(cfg), Path(cfg.run_dir))
    if path is None:
        return cfg
    record = load_record(path)
    own, composed = (OmegaConf.to_container(each, resolve=False) for each in (record, cfg))
    loader = GlobalHydra.instance().config_loader()
    groups = loader.list_groups("")
    for key in composed:
        if key in TODAYS or (key not in own and key not in groups):  # those are newer than the record
            record[key] = composed[key]
    overrides = [each for each in OverridesParser.create(loader).parse_overrides(typed) if not each.is_hydra_override()]
    for override in sorted(overrides, key=lambda override: override.key_or_group not in groups):  # as Hydra does
        if override.key_or_group in PRESETS:
            for key in _set_by_presets(override):
                _adopt(record, composed, key)
        elif override.key_or_group in groups:
            _adopt(record, composed, override.package or override.key_or_group)
        elif override.key_or_group not in TODAYS:
            _apply(override, record, own)
    for key, value in leaves(OmegaConf.to_container(record, resolve=False)):
        if value == "???" and _has(own, key):  # data=folder without data.root
            OmegaConf.update(record, key, OmegaConf.select(load_record(path), key))
    OmegaConf.set_struct(record, True)
    return record


def differences(record: DictConfig, cfg: DictConfig) -> list[str]:
    """A line for each setting of a record that is another in cfg; what follows from another setting is left out."""
    lines = []
    before, now = (dict(leaves(OmegaConf.to_container(each, resolve=False))) for each in (record, cfg))
    for key in dict.fromkeys([*before, *now]):
        if key in TODAYS or (key in before and key in now and before[key] == now[key]):
            continue
        old = as_typed(OmegaConf.select(record, key)) if key in before else "not set"
        new = as_typed(OmegaConf.select(cfg, key)) if key in now else "not set"
        if old != new:
            lines.append(f"{key}: {old} -> {new}")
    return lines


def what_is_kept(cfg: DictConfig, checkpoint: Path | None) -> list[str]:
    """Lines for the user: which settings a run goes on with, and whether its folder is that of another one.

    Args:
        cfg: of `resumed_settings`.
        checkpoint: from which it goes on; None: it starts anew.
    """
    folder, lines = Path(cfg.run_dir, "checkpoints"), []
    if checkpoint is not None:
        path = record_of(checkpoint, Path(cfg.run_dir))
        if path is None:
            lines.append(
                f"there is no train.yaml for {checkpoint}: settings that you do not type have their defaults, such as"
                f" data.root={cfg.data.root}"
            )
        else:
            lines.append(f"continuing from {os.path.relpath(checkpoint)} with the settings of {os.path.relpath(path)}")
            lines += differences(load_record(path), cfg)
        if is_in_place(cfg, checkpoint):
            return lines
    if (folder / "last.ckpt").is_file():
        lines.append(f"{folder} will be replaced: use name=other to keep it, or continue it with {to_resume(cfg)}")
    return lines


def is_in_place(cfg: DictConfig, checkpoint: Path) -> bool:
    """Whether the checkpoint is of the run that goes on from it, and not of another one."""
    return checkpoint.resolve().parent == Path(cfg.run_dir, "checkpoints").resolve()


def to_resume(cfg: DictConfig) -> str:
    """The whole command that goes on with this run, to be pasted into a shell."""
    return command_line("train", **run_settings(cfg.run_dir), ckpt_path="last")


def as_hydra_takes_them(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A command line, changed so that Hydra takes what suits the run that is resumed, if one is, and not the defaults.

    A run with scheduler=step has scheduler.step_size, which the defaults have not. So such a value is added if need be,
    and a deletion is left to `resumed_settings`, which refuses what the run has not, either. A sweep stays as it is:
    its folders are named after what is typed.

    Returns:
        The arguments for Hydra, and those to be left to `resumed_settings` alone.
    """
    if not any(argument.startswith("ckpt_path=") for argument in arguments) or {"-m", "--multirun"} & {*arguments}:
        return arguments, []
    dotted = re.compile(r"~?(?!hydra\.)\w+\.[\w.]+(=|$)")
    deletions = [argument for argument in arguments if argument.startswith("~") and dotted.match(argument)]
    others = [argument for argument in arguments if argument not in deletions]
    return [f"++{argument}" if dotted.match(argument) else argument for argument in others], deletions


def _set_by_presets(override: Override) -> Iterator[str]:
    """The keys that conf/<group>/<option>.yaml and what it inherits from set, and the groups that they choose."""
    loader, found = GlobalHydra.instance().config_loader(), override.value()
    folders = [Path(each.path.removeprefix("file://")) for each in loader.get_search_path().get_path() if each.path]
    options = [option for option in (found if isinstance(found, list) else [found]) if option is not None]
    for option in options:
        file = next(path for folder in folders if (path := folder / override.key_or_group / f"{option}.yaml").is_file())
        preset = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        for default in preset.pop("defaults", []):
            if isinstance(default, str):
                options.append(default)
            else:
                yield from (key.rpartition("/")[2] for key in default)
        yield from (key for key, _ in leaves(preset))


def _adopt(record: DictConfig, composed: dict, key: str) -> None:
    """Put what is composed at a path in the place of what the run has."""
    _delete(record, key)
    if _has(composed, key):
        value = functools.reduce(lambda node, name: node[name], key.split("."), composed)
        OmegaConf.update(record, key, value, force_add=True)


def _apply(override: Override, record: DictConfig, own: dict) -> None:
    """Change, add or delete one setting.

    Raises:
        ValueError: the run has no such setting, or it belongs to the start of a run.
    """
    key, value = override.key_or_group, None if override.is_delete() else override.value()
    if key in STARTS and value is not None:
        raise ValueError(f"{key} starts a run and ckpt_path continues one: leave one of them out")
    known = override.is_add() or "." not in key or _has(own, key)  # Hydra knows all at the root
    if not known and not _has(OmegaConf.to_container(hydra.compose("train"), resolve=False), key):
        hint = "" if override.is_delete() else f": add it with a plus, as in +{key}=..."
        raise ValueError(f"{key} is not among the settings of this run{hint}")
    if override.is_delete():
        _delete(record, key)
    else:
        OmegaConf.update(record, key, value, force_add=True)


def _has(node: dict, key: str) -> bool:
    """Whether something stands at a dotted path; what a reference leads to stands elsewhere."""
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


def _delete(record: DictConfig, key: str) -> None:
    if _has(OmegaConf.to_container(record, resolve=False), key):
        parent, _, name = key.rpartition(".")
        del (OmegaConf.select(record, parent) if parent else record)[name]
