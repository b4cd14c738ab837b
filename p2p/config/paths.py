"""Check settings that are names and paths, such as an empty shell variable, and expand `~`."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from p2p.config.shown import as_typed
from p2p.run.leaves import leaves

EMPTY = "{key}= is empty: give it a value, or leave it out; is a shell variable not set?"
PATHS = {  # the last part of a setting's name
    *("root", "input", "output", "run_dir", "export", "ckpt_path", "init_from", "init_discriminator_from"),
    *("images_from", "samples", "cache_dir", "folder", "dirpath", "save_dir", "train", "val"),
}


def settle_paths(cfg: DictConfig) -> None:
    """Put the home folder in the place of ~ and ~user, in `cfg`, and refuse what names nothing.

    Raises:
        ValueError: a word is empty, a path is none, its user is not known, or runs/<name> is no folder of its own.
    """
    for key, value in leaves(OmegaConf.to_container(cfg, resolve=False)):
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and not word.strip():
                raise ValueError(EMPTY.format(key=key))
            if isinstance(word, str) and "\0" in word:
                raise ValueError(f"{key}={word!r} holds a zero byte, which no path and no name can")
        if key.rpartition(".")[2] in PATHS and value not in (None, "???"):
            OmegaConf.update(cfg, key, _expanded(key, value))
    _check_name(OmegaConf.to_container(cfg, resolve=False)["name"])


def _expanded(key: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a folder of a year's name
    if not isinstance(value, str):
        several = "; for several paths write them into a file, and use input=@file" if key == "input" else ""
        what = "last, best or the path of a checkpoint" if key == "ckpt_path" else "the path of a file or folder"
        raise ValueError(f"{key}={as_typed(value)} is not valid: use {what}{several}")
    of_a_list = "@" if value.startswith("@~") else ""  # input=@list.txt
    path = value.removeprefix(of_a_list)
    try:
        return of_a_list + str(Path(path).expanduser()) if path.startswith("~") else value
    except RuntimeError:
        user = path[1:].partition("/")[0]
        raise ValueError(f"{key}={value}: there is no user {user}, whose folder that would be") from None


def _check_name(name: object) -> None:
    """Raise a ValueError if runs/<name> is runs/ itself, or a folder that holds it."""
    if isinstance(name, (list, dict)) or name is None:
        raise ValueError(f"name={as_typed(name)} is not valid: use a word")
    name = str(name)
    parts = Path(os.path.normpath(name)).parts
    if name.startswith("/"):
        raise ValueError(f"name={name} is not the name of a folder in runs/: for a folder elsewhere use run_dir={name}")
    if all(part in (".", "..") for part in parts):
        raise ValueError(f"name={name} is not the name of a run: use a word; the folder of the run is then runs/<name>")
