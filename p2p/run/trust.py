"""Check what a run's record names: it may come from other people, and Hydra calls whatever a `_target_` names.

Allowed are the targets of conf/, each in its own group, and classes of the libraries that p2p is configured with. What
else a user's own runs need is named in the environment variable P2P_TRUST.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from p2p.shipped import CONF

VARIABLE = "P2P_TRUST"  # names of modules, with commas between
OF_NO_RECORD = ("backend", "codec", "pipeline", "profile", "hydra")  # groups that only export.py and infer.py have
# A class, and one step below the package: with more steps a path leads out of it, as in torch.nn.functional.torch.hub.
LIBRARIES = re.compile(
    r"torch\.nn\.[A-Z]\w*|torch\.optim\.[A-Z]\w*|torch\.optim\.lr_scheduler\.[A-Z]\w*"
    r"|lightning(\.pytorch)?\.Trainer|lightning\.pytorch\.(callbacks|loggers|strategies|profilers)\.[A-Z]\w*"
)
# ${epochs} and ${oc.select:image_size,null} are other settings of the record, ${samples:} is the folder of the samples;
# other resolvers ask or run what they like.
REFERENCES = re.compile(r"\$\{(oc\.select:)?[\w.\[\]-]+(,[^${}:]*)?\}|\$\{samples:\}")


def check_record(record: DictConfig, path: Path) -> None:
    """Raise a ValueError if a record names what it may not. It was read from `path`, and not yet resolved."""
    unknown = {}
    for key, value in _values(OmegaConf.to_container(record, resolve=False)):
        if isinstance(value, str) and "${" in REFERENCES.sub("", value):
            raise ValueError(
                f"{path} has {key}={value}, which refers to something outside the record: replace it by its value"
            )
        *group, name = key.split(".")
        if (name == "_target_" and not allowed(value, group)) or "_target_" in group:
            unknown[key] = value
    if unknown:
        name, *others = dict.fromkeys(map(str, unknown.values()))
        more = f", and elsewhere {', '.join(others)}, which are" if others else ", which is"
        raise ValueError(
            f"{path} has {next(iter(unknown))}={name}{more} not of p2p and would be called: if you trust"
            f" {'them' if others else 'it'}, set {trust_in(name, *others)} in the environment"
        )


def trust_in(*names: str) -> str:
    """The variable, set so that it allows these names, too."""
    before = filter(None, os.environ.get(VARIABLE, "").split(","))
    return f"{VARIABLE}={','.join([*before, *names])}"


def allowed(target: object, group: list[str]) -> bool:
    """Whether a node may name this target.

    Args:
        target: the value of its `_target_`.
        group: the keys that lead to the node; the last one that is a group of conf/ counts.
    """
    if not isinstance(target, str):
        return False
    if trusted(target):
        return True
    known = targets()
    nearest = next((key for key in reversed(group) if key in known), "")
    return LIBRARIES.fullmatch(target) is not None or target in known.get(nearest, ())


def trusted(name: str) -> bool:
    """Whether P2P_TRUST allows what a dotted name stands for, by its own name or that of a package around it."""
    names = filter(None, os.environ.get(VARIABLE, "").split(","))
    return any(name == each or name.startswith(f"{each}.") for each in names)


@cache
def targets() -> dict[str, set[str]]:
    """Of each group that a record can have what its files in conf/ name."""
    found: dict[str, set] = {}
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name not in OF_NO_RECORD:
            values = _values(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
            names = (value for key, value in values if key.rpartition(".")[2] == "_target_")
            found.setdefault(path.parent.name, set()).update(names)
    return found


def _values(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value in nested dicts and lists, with its dotted path."""
    if not isinstance(node, (dict, list)):
        yield path, node
        return
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield from _values(value, f"{path}.{key}" if path else str(key))
