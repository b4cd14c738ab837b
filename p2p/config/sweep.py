"""What becomes of the jobs of a sweep (-m), whichever launcher and sweeper of Hydra run them."""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from p2p.system import atomic

SCORES = {"export": ("PSNR, worst image", "max"), "infer": ("images/s", "max")}  # train has monitor and monitor_mode
running: list[Path] = []  # the folder of the sweep that this process has started


class JobFailed(ValueError):
    """A user's mistake in one job of a sweep, which goes on with the others."""


class Jobs(Callback):
    """Writes `<hydra.sweep.dir>/.sweep/<job>.json` when a job ends, in the process and on the machine that it ran on.

    The object is made where the sweep starts, and travels to its jobs.
    """

    def __init__(self):
        self._folder: Path | None = None
        self._began = 0.0

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make room for the jobs of this sweep."""
        sweep = Path(config.hydra.sweep.dir).absolute()
        self._folder = sweep / ".sweep"
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.glob("*.json"):
            path.unlink()
        running.append(sweep)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Note the time."""
        self._began = time.time()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write what has become of it."""
        if config.hydra.mode != RunMode.MULTIRUN or self._folder is None:
            return
        result, done = job_return._return_value, job_return.status == JobStatus.COMPLETED
        name, mode = SCORES.get(config.hydra.job.name) or (config.monitor, config.monitor_mode)
        score = float(result) if done and result is not None else math.nan
        job = {
            "overrides": dict(each.lstrip("+").partition("=")[::2] for each in job_return.overrides),
            "folder": config.hydra.runtime.output_dir,
            "score": score if math.isfinite(score) else None,
            "monitor": name,
            "mode": mode,
            "seconds": time.time() - self._began,
            "reason": None if done else " ".join(str(result).split()) or type(result).__name__,
        }
        atomic.write(self._folder / f"{config.hydra.job.num:06d}.json", json.dumps(job))


@contextmanager
def summarized() -> Iterator[None]:
    """Show the jobs of a sweep that the block runs, when it is over, however it ends.

    Hydra's own `on_multirun_end` is called only where no job has failed.

    Raises:
        ValueError: some jobs have failed.
    """
    running.clear()
    failed: JobFailed | None = None
    try:
        yield
    except JobFailed as error:
        failed = error
    finally:
        # By name: a report stands above the config.
        sentence = importlib.import_module("p2p.report.sweep").summarize(running[0]) if running else None
    if failed is not None:
        raise ValueError(sentence or str(failed))
