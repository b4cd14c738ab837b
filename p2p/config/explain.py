"""Turn an exception into the sentence for the user, whichever library raised it."""

from __future__ import annotations

import errno
import os
import re
import shlex
import traceback
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from p2p.config.arguments import without_value
from p2p.config.known import of_another, settings_of
from p2p.config.pasteable import command_line, hydra_value
from p2p.config.shown import nearest
from p2p.shipped import CONF
from p2p.system import gpu_faults

GO_ON = {  # of a command that failed
    "train": " with ckpt_path=last to continue from the last checkpoint",
    "infer": " with skip_existing=true to continue from here",
}
DEFAULTS = "hydra/_internal/defaults_list.py"  # of 1.3, where a number in a group's place is a TypeError
OPTIONAL = ("wandb", "mlflow", "torch-fidelity")  # packages, extras of pyproject.toml
PRESETS = {  # what begins so is of a package, of the extras sweeps and sweeps-ray
    "hydra_plugins.hydra_joblib_launcher": ("hydra/launcher=joblib", "hydra-joblib-launcher"),
    "hydra_plugins.hydra_submitit_launcher": ("hydra/launcher=submitit", "hydra-submitit-launcher"),
    "hydra_plugins.hydra_ray_launcher": ("hydra/launcher=ray", "hydra-ray-launcher"),
    "optuna": ("hydra/sweeper=optuna", "optuna"),
}
GROUP = "a group takes the names of its options, such as generator=unet: see --help"


def explain(error: Exception, config_name: str) -> str | None:
    """The sentence for a user's mistake; None for a bug."""
    if match := re.search(r"(?:Error locating target|Unknown plugin class :) '((\w+)[\w.]*)'", str(error)):
        for begin, (what, package) in PRESETS.items():
            if f"{match[1]}.".startswith(f"{begin}."):
                return f"{what} needs the package {package}, which is not installed: pip install {package}"
    if "'hydra/sweeper/optuna' is validated against ConfigStore schema" in str(error):
        return (
            "hydra/sweeper=optuna is p2p's, and the package hydra-optuna-sweeper has one of that name: pip uninstall"
            " hydra-optuna-sweeper"
        )
    if isinstance(error, RuntimeError) and 'detect "srun"' in str(error):
        return (
            "hydra/launcher=submitit_slurm finds no srun: start it on a machine of a SLURM cluster, or use"
            " hydra/launcher=submitit_local"
        )
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        key = str(error).rpartition("full_key: ")[2]
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError):
            for package in OPTIONAL:
                if package in str(cause).lower():
                    return f"{key} needs the package {package}, which is not installed: pip install {package}"
            return None
        if match := re.match(r"Error locating target '([^']+)'", str(error)):
            place = match[1].rpartition(".")[0]
            return (
                f"{key}: {match[1]} cannot be imported: is the name right, and is the package of {place} installed, or"
                " its folder in PYTHONPATH?"
            )
        return f"{key}: {cause}" if isinstance(cause, TypeError) else explain(cause, config_name)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's; importing the class takes seconds
        return " ".join(str(error).split())
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
        how = re.search(r"killed by signal: ([\w ]+)", str(error))
        return (
            f"a loader process died ({how[1].strip() if how else 'it was killed'}): the machine's memory or /dev/shm is"
            " full, use fewer data.workers or a smaller batch_size"
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)):
        return "the machine's memory is full: use a smaller batch_size or image_size, or end other programs"
    if isinstance(error, RuntimeError) and "more than one stateful callback" in str(error):
        return (
            "two callbacks of one type, such as callbacks.best and callbacks.best_k, have the same settings: give one"
            " of them another monitor, as in callbacks.best_k.monitor=val/L1 callbacks.best_k.mode=min"
        )
    if sentence := gpu_faults.explain(error, go_on=GO_ON.get(config_name, "")):
        return sentence
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = error.missing_cfg_file.removeprefix("hydra/").partition("/")
        group = error.missing_cfg_file.removesuffix(f"/{option}")
        if (group == "data" and "/" in option) or Path(option).is_dir():
            return f"data={option} is not known: for a folder of pairs use data=folder data.root={option}"
        return f"{group}={option} is not known{nearest(option, error.options)}; known are {', '.join(error.options)}"
    if match := re.match(r"In '\w+': Could not load '(\w+)/([^']+)'", str(error)):
        group, option = match.groups()  # of a list of options, which Hydra says in other words
        known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"{group}={option} is not known{nearest(option, known)}; known are {', '.join(known)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: give it one, as in {error.full_key}=..."
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if not equals and not key.startswith("~"):
            return without_value(key, command=config_name, keys=_all_keys(config_name))
        quoted = shlex.quote(f"{key}={hydra_value(value)}") if value and value[0] not in "[{" else "'key=\"a b\"'"
        return f"{error.override} cannot be read: put quotes around special characters, as in {quoted}"
    if isinstance(error, HydraException) and (match := re.match(r"Could not override '([^']+)'", str(error))):
        return _unknown_key(match[1], config_name)
    if match := re.match(r"Multiple values for (\w+)\. ", str(error)):  # of a list of presets, each of which chooses it
        return f"{match[1]} is chosen more than once: use one option of each group that chooses it"
    if match := re.match(r"Ambiguous value for argument '(.*?)'\n", str(error)):
        key, _, value = match[1].partition("=")
        word = shlex.quote(f"{key}={hydra_value(value)}")
        return f"{match[1]} has several values: for a run with each of them add -m; for one word write {word}"
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string"):  # null
        return GROUP
    if match := re.match(r"Interpolation key '(.*)' not found|Key '.*' is not in struct\s+full_key: (.*)", str(error)):
        key = match[1] or match[2]
        options = ", ".join(sorted(path.stem for path in (CONF / key).glob("*.yaml")))  # of a group
        return f"{key} has no option: choose from {options}" if options else f"{key} is needed: leave it in"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return f"{path}: {error.strerror}" if path else str(error)
        where = f"{path} cannot be written" if path else str(error)
        return f"{where}: the disk is full, or your share of it; make room there and start again, or write elsewhere"
    if isinstance(error, TypeError) and traceback.extract_tb(error.__traceback__)[-1].filename.endswith(DEFAULTS):
        return GROUP
    if isinstance(error, ValueError):
        # A loader process wraps its exception in a whole stack trace, which ends with the message.
        message = str(error).strip()
        return message.rpartition("\nValueError: ")[2] if message.startswith("Caught ") else message
    return None


def _unknown_key(key: str, config_name: str) -> str:
    if sentence := of_another(key.partition(".")[0], config_name):
        return sentence
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    if key in groups:
        return f"{key} is not among the defaults of {config_name}: add it with a plus, as in +{key}=..."
    if owners := _options_with(key, config_name):
        group, _, name = key.partition(".")
        one = " or ".join(filter(None, [", ".join(owners[:-1]), owners[-1]]))
        if name.startswith(f"{one}."):  # of a group of which there can be several
            one = f"[...,{one}]"
        return f"{key} is not of the option of {group} that is chosen: leave it out, or choose {group}={one}"
    keys = _all_keys(config_name)
    hint = nearest(key, list(dict.fromkeys([*keys, *groups])))
    return f"{key} is not in the config{hint}; see all of it with {command_line(config_name, '--cfg', 'job')}"


def _options_with(key: str, config_name: str) -> list[str]:
    """The options of conf/ that have a setting, of the group that its name begins with."""
    group, _, name = key.partition(".")
    if group not in settings_of(config_name):
        return []
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if name in _keys_of_option(path)]


def _keys_of_option(path: Path) -> set[str]:
    option = OmegaConf.load(path)
    inherited = [path.with_stem(each) for each in option.pop("defaults", []) if isinstance(each, str)]
    return {*_keys(option)}.union(*(_keys_of_option(each) for each in inherited if each.stem != "_self_"))


def _all_keys(config_name: str) -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return list(_keys(hydra.compose(config_name)))


def _keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a config, dotted, interpolations left alone."""
    for name in cfg:
        yield prefix + name
        if OmegaConf.is_dict(node := cfg._get_node(name)) and not OmegaConf.is_interpolation(cfg, name):
            yield from _keys(node, f"{prefix}{name}.")
