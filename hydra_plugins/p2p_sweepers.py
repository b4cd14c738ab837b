"""The sweepers of p2p. Hydra takes plugins from this package alone; what they do is in `p2p.config`.

Hydra imports this file for every program in the environment that uses it, so p2p is imported where it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class Grid(BasicSweeper):
    """All combinations, as Hydra's own sweeper, but every job's settings are checked before the first job starts.

    Nor does a job that fails end a sweep of several batches (`hydra.sweeper.max_batch_size`).
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Check them, then run them.

        Raises:
            ValueError: the settings of a job cannot be, two jobs have one folder, or a job has failed.
        """
        from p2p.config.jobs import check_jobs, raise_failure

        loader = self.hydra_context.config_loader
        params = [f"{key}={value}" for key, value in self.params.items()]
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*params, *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        check_jobs(self.config, [job for batch in batches for job in batch], loader=loader)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: list[list[JobReturn]] = []
        for batch in batches:
            returns.append([*self.launcher.launch(batch, initial_job_idx=sum(map(len, returns)))])
        raise_failure(job for batch in returns for job in batch)
        return returns


class Optuna(Sweeper):
    """Jobs whose settings Optuna proposes, by its ask-and-tell interface; see `p2p.config.search`.

    Args:
        n_trials: of the whole study, also of those that earlier calls have made.
        n_jobs: that are proposed, and launched, at a time.
        storage: the study's file, or the address of a database, as Optuna has it.
        sampler: a function of a seed to one of Optuna's samplers.
        seed: for it.
        params: key -> a space in Hydra's words, such as interval(1,200); what is typed comes in the place of all.
    """

    def __init__(self, *, n_trials: int, n_jobs: int, storage: str, sampler: Any, seed: int, params: DictConfig | None):
        self.n_trials, self.n_jobs, self.storage = n_trials, n_jobs, storage
        self.sampler, self.seed, self.params = sampler, seed, dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher; called by Hydra."""
        self.config, self.loader = config, hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study to its end; see `p2p.config.search.search`."""
        from p2p.config.search import search

        return search(self, arguments)
