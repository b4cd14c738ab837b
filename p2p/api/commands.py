"""The three commands as functions, with the same checks, messages and run folders; call them as often as you like."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from p2p.config.cli import checked, for_hydra, quiet_libraries
from p2p.config.explain import explain
from p2p.config.known import COMMANDS
from p2p.config.shown import as_typed, shown
from p2p.shipped import CONF
from p2p.system import signals

TURN = threading.RLock()  # Hydra's state is the process's: commands of several threads take turns


def compose(overrides: Sequence[str] | None, *, command: str) -> DictConfig:
    """See `p2p.compose`."""
    if command not in COMMANDS:
        raise ValueError(f"command={command} is not known: use {', '.join(COMMANDS)}")
    with conf(command) as hydra, sentences(command):
        arguments, deletions = for_hydra(command, words(overrides))
        cfg = hydra.compose_config(command, arguments, run_mode=RunMode.RUN)
        with read_write(cfg), open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(Path.cwd() / cfg.hydra.run.dir)
            HydraConfig.instance().set_config(cfg)
            del cfg["hydra"]
        cfg = checked(command, cfg, deletions)
        if command == "train":
            cfg.run_dir = str(cfg.run_dir)  # which asks Hydra, as long as it knows
    return cfg


def run(command: str, overrides: Sequence[str] | None) -> Any:
    """What `p2p.commands.<command>.main` returns, of settings as on a command line."""
    done: dict[str, Any] = {}

    def job(cfg: DictConfig) -> None:
        try:
            cfg = checked(command, cfg, deletions)
            if command == "train":
                check_alone(cfg)
            done["result"] = importlib.import_module(f"p2p.commands.{command}").main(cfg)
        except Exception as error:  # of which Hydra would print a line
            done["error"] = error

    with conf(command) as hydra, sentences(command), signals.as_interrupts():
        arguments, deletions = for_hydra(command, words(overrides))
        quiet_libraries()
        hydra.run(command, job, arguments, with_log_configuration=False)
        if "error" in done:
            raise done["error"]
    return done["result"]


def words(overrides: Sequence[str] | None) -> list[str]:
    """The settings, if they are a list of words and no flags.

    Raises:
        ValueError: they are something else.
    """
    found = [] if overrides is None else overrides
    if not isinstance(found, (list, tuple)) or not all(isinstance(word, str) for word in found):
        raise ValueError(f"overrides={overrides!r} is not valid: use a list of words, as in ['name=mine', 'epochs=3']")
    for word in found:
        if word in ("-m", "--multirun"):
            raise ValueError(f"{word} works only on the command line: make a call for each value")
    return [*found]


def check_alone(cfg: DictConfig) -> None:
    """Refuse several processes: each further one would start the program again that calls this.

    Raises:
        ValueError: there would be some.
    """
    devices, nodes = cfg.trainer.get("devices", 1), cfg.trainer.get("num_nodes", 1)
    one = devices in (1, "1") or (OmegaConf.is_list(devices) and len(devices) == 1)
    if nodes != 1 or not one:
        raise ValueError(
            f"trainer.devices={as_typed(devices)} would start this program again for each process: use p2p train on the"
            " command line, or trainer.devices=1"
        )


@contextmanager
def conf(command: str) -> Iterator[Any]:
    """Hydra with conf/; what the program around has made of Hydra is as before afterwards."""
    with TURN:
        instance, base, config = GlobalHydra.instance(), version.getbase(), HydraConfig.instance().cfg
        hydra = instance.hydra
        instance.clear()
        try:
            with initialize_config_dir(str(CONF), job_name=command, version_base="1.3"):
                yield GlobalHydra.instance().hydra
        finally:
            instance.hydra = hydra
            GlobalHydra.set_instance(instance)
            HydraConfig.instance().cfg = config
            version.VersionBase.instance().version_base = base


@contextmanager
def sentences(command: str) -> Iterator[None]:
    """Raise a ValueError with the command's sentence for what is no bug.

    Raises:
        ValueError: instead of any exception that the command line would answer with a sentence.
    """
    try:
        yield
    except Exception as error:  # a user's mistake becomes a sentence, a bug is raised again
        sentence = explain(error, command)
        if sentence is None:
            raise
        raise ValueError(shown(sentence)) from error
