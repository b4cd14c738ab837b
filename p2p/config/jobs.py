"""The jobs of a sweep, checked before the first one starts."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from p2p.config.cli import checked
from p2p.config.sweep import JobFailed


def check_jobs(config: DictConfig, jobs: Sequence[Sequence[str]], *, loader: ConfigLoader, apart: bool = True) -> None:
    """Compose and check the settings of each job, as the job itself will.

    Args:
        config: of the sweep.
        jobs: the overrides of each.
        loader: Hydra's.
        apart: also that each writes to a folder of its own.

    Raises:
        ValueError: the settings of a job cannot be, or two trainings have one folder.
    """
    before = HydraConfig.instance().cfg
    folders: dict[str, Sequence[str]] = {}
    try:
        for number, overrides in enumerate(jobs):
            cfg = composed(config, overrides, number=number, loader=loader)
            folder = cfg.hydra.runtime.output_dir
            with read_write(cfg), open_dict(cfg):
                del cfg["hydra"]
            with redirect_stdout(None):  # the job says what is to be said
                cfg = checked(config.hydra.job.name, cfg, [])
            folder = writes_to(cfg) or folder
            if apart and (other := folders.setdefault(os.path.realpath(folder), overrides)) is not overrides:
                raise ValueError(
                    f"{' '.join(other)} and {' '.join(overrides)} would both write to {os.path.relpath(folder)}: give"
                    " each job a folder of its own, or leave the setting out that names it"
                )
    finally:
        HydraConfig.instance().cfg = before


def raise_failure(jobs: Iterable[JobReturn]) -> None:
    """Raise what one of them has raised; a user's mistake without the line that Hydra adds, as the job has said it."""
    for job in jobs:
        if isinstance(job._return_value, JobFailed):
            raise job._return_value
        _ = job.return_value  # raises it


def composed(config: DictConfig, overrides: Sequence[str], *, number: int, loader: ConfigLoader) -> Any:
    """The config of a job as Hydra's launchers compose it, which becomes Hydra's current one."""
    cfg = loader.load_sweep_config(config, list(overrides))
    with read_write(cfg), open_dict(cfg):
        cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
    HydraConfig.instance().set_config(cfg)
    with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = str(Path(str(cfg.hydra.sweep.dir), str(cfg.hydra.sweep.subdir)).absolute())
    HydraConfig.instance().set_config(copy.deepcopy(cfg))
    return cfg


def writes_to(cfg: DictConfig) -> str | None:
    """The folder that a command writes to."""
    return OmegaConf.select(cfg, "output") or OmegaConf.select(cfg, "run_dir")
