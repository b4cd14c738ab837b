"""What becomes of the jobs of a sweep (-m), whichever launcher and sweeper of Hydra run them."""

from __future__ import annotations

import json
import math
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from p2p.system import atomic
from p2p.system.gpus import gpu_addresses, one_gpu

SCORES = {"export": ("PSNR, worst image", "max"), "infer": ("images/s", "max")}  # train has monitor and monitor_mode
NO_END = "it was stopped, or its process died"
CRASHES = (  # what launchers raise of a job whose process died: joblib's, submitit's, Ray's
    *("TerminatedWorkerError", "UncompletedJobError", "FailedJobError", "WorkerCrashedError", "OutOfMemoryError"),
    *("NodeDiedError", "LocalRayletDiedError"),
)

# A preset of conf/hydra/launcher has the name that its plugin gives the same settings. Here, not in a function: a job
# composes its config in a process of its own, and unpickles `Jobs` before.
warnings.filterwarnings("ignore", r"(?s).*is validated against ConfigStore schema with the same name")


class JobFailed(ValueError):
    """A user's mistake in one job of a sweep, which goes on with the others."""


class Started(NamedTuple):
    """A sweep that this process has started.

    Attributes:
        folder: of its jobs' folders.
        mark: what its jobs' records have in common.
    """

    folder: Path
    mark: str


started: Started | None = None
has_gpu = False  # this process, which a sweep has given one


class Jobs(Callback):
    """Writes `<hydra.sweep.dir>/.sweep/<job>.json` as a job starts and ends, on the machine that runs it.

    The object is made where the sweep starts, and travels to its jobs.
    """

    def __init__(self):
        self._sweep: Started | None = None
        self._gpus = 0
        self._job: dict[str, Any] = {}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Know the sweep by a mark; of earlier ones in this folder nothing is removed before a job has started."""
        global started
        self._sweep = started = Started(Path(config.hydra.sweep.dir).absolute(), secrets.token_hex(4))
        # Not in the jobs' processes, where CUDA would look around; other launchers have schedulers that give out GPUs.
        self._gpus = len(gpu_addresses()) if "joblib" in config.hydra.launcher._target_ else 0

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Write that it has not ended, which remains true if its process dies."""
        if config.hydra.mode != RunMode.MULTIRUN or self._sweep is None:
            return
        if self._gpus > 1:
            take_gpu(config.hydra.job.num % self._gpus)
        name, mode = score_of(config)
        self._job = {
            "sweep": self._sweep.mark,
            "number": config.hydra.job.num,
            "overrides": dict(each.lstrip("+").partition("=")[::2] for each in config.hydra.overrides.task),
            "folder": config.hydra.runtime.output_dir,
            "monitor": name,
            "mode": mode,
            "began": time.time(),
        }
        self._write(score=None, reason=NO_END)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write what has become of it."""
        if config.hydra.mode != RunMode.MULTIRUN or self._sweep is None:
            return
        result, done = job_return._return_value, job_return.status == JobStatus.COMPLETED
        score = float(result) if done and result is not None else math.nan
        reason = None if done else " ".join(str(result).split()) or type(result).__name__
        self._write(score=score if math.isfinite(score) else None, reason=reason)

    def _write(self, *, score: float | None, reason: str | None) -> None:
        job = self._job | {"seconds": time.time() - self._job["began"], "score": score, "reason": reason}
        write_job(self._sweep.folder, job)


def write_job(folder: Path, job: dict[str, Any]) -> None:
    """Write a job's record into the folder of its sweep."""
    path = folder / ".sweep" / f"{job['number']:06d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps(job))


def jobs_of(folder: Path) -> dict[Path, dict[str, Any]]:
    """The records of all jobs in the folder of a sweep, also those of earlier sweeps there; by their files."""
    return {path: json.loads(path.read_text()) for path in sorted((folder / ".sweep").glob("*.json"))}


def score_of(config: DictConfig) -> tuple[str, str]:
    """The name of what a command returns to a sweeper, and which is better, "min" or "max"."""
    return SCORES.get(config.hydra.job.name) or (config.monitor, config.monitor_mode)


def take_gpu(number: int) -> None:
    """Let this process see one of the machine's GPUs alone. CUDA looks only once, so later jobs keep what it has."""
    global has_gpu
    if not has_gpu:
        os.environ.update(one_gpu(number))
    has_gpu = True


def trial_of_job() -> list | None:
    """Where the study of this sweep is, its name, and the number of this job's trial; None where nothing searches."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode != RunMode.MULTIRUN or "storage" not in hydra.sweeper:
        return None
    return [hydra.sweeper.storage, str(Path(hydra.sweep.dir)), hydra.job.num]


OmegaConf.register_new_resolver("trial_of_job", trial_of_job, replace=True)


@contextmanager
def summarized(summarize: Callable[[Path, str], str | None]) -> Iterator[None]:
    """Show the jobs of a sweep that the block runs, when it is over, however it ends.

    Hydra's own `on_multirun_end` is called only where no job has failed.

    Args:
        summarize: of a sweep's folder and mark; returns a sentence about the jobs that failed.

    Raises:
        ValueError: some jobs have failed.
    """
    global started
    started, failed, sentence = None, None, None
    try:
        yield
    except Exception as error:
        if not isinstance(error, JobFailed) and type(error).__name__ not in CRASHES:
            raise
        failed = error
    finally:
        if started is not None:
            sentence = summarize(*started)
    if failed is not None:
        raise ValueError(sentence or " ".join(str(failed).split()))
