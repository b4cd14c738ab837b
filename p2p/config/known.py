"""Which settings a command has. A setting that belongs to another command is refused, not ignored."""

from __future__ import annotations

import re
from functools import cache

from omegaconf import DictConfig, OmegaConf

from p2p.run.leaves import leaves
from p2p.shipped import CONF

COMMANDS = ("train", "export", "infer", "serve")


def check_known(cfg: DictConfig, *, command: str, overrides: list[str]) -> None:
    """Refuse what is typed, and what neither the command nor another setting looks at.

    Args:
        cfg: what the overrides have led to.
        overrides: of the command line.

    Raises:
        ValueError: the first such setting, and whose it is.
    """
    for override in overrides:
        key, package = split_override(override)
        root = re.split(r"[./]", key)[0]
        if root in settings_of(command) or refers_to(cfg, root):
            continue
        if sentence := of_another(root, command):
            raise ValueError(sentence)
        if package is None and root in cfg:
            raise ValueError(f"{root}= is not a setting of {command}, and nothing refers to it: leave it out")


def split_override(override: str) -> tuple[str, str | None]:
    """What an override changes, and behind an @ the package of a group."""
    group, _, package = override.lstrip("+~").partition("=")[0].partition("@")
    return group, package or None


def of_another(key: str, command: str) -> str | None:
    """The sentence for a setting at the root, or a group, of other commands; None for what this one has, or none."""
    owners = [each for each in COMMANDS if key in settings_of(each)]
    if not owners or command in owners:
        return None
    return f"{key}= is of {' and '.join(owners)}, and not of {command}: leave it out"


@cache
def settings_of(command: str) -> frozenset[str]:
    """Its settings at the root, and its groups, by what conf/<command>.yaml has and chooses."""
    own, base = (OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")) for name in (command, "base"))
    chosen = [each for each in own["defaults"] if isinstance(each, dict)]
    groups = {group for each in chosen for group in each if not group.startswith("override ")}
    if "reconstruction" in groups:  # which chooses options of this one
        groups.add("losses")
    return frozenset({*own, *base, *groups} - {"defaults", "hydra"})


def refers_to(cfg: DictConfig, root: str) -> bool:
    """Whether a setting outside of `root` is made of what is in it."""
    reference = re.compile(rf"\$\{{(oc\.select:)?{re.escape(root)}\b")
    found = leaves(OmegaConf.to_container(cfg, resolve=False))
    return any(reference.search(str(value)) for key, value in found if key.partition(".")[0] != root)
