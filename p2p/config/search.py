"""A sweep whose settings Optuna proposes, by its ask-and-tell interface.

The number of a trial is that of its job, so a job finds its trial without being told.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus

from p2p.config import sweep
from p2p.config.jobs import check_jobs, raise_failure
from p2p.system.cores import available_cores
from p2p.system.plural import counted

if TYPE_CHECKING:
    import optuna

PRUNED = "epochs"  # user attributes of a trial: after how many it was pruned; whether its sweep was stopped meanwhile
STOPPED = "stopped"
HOPELESS = 3  # trials that fail before one succeeds end the search
FOLDER = "hydra.sweep.subdir=${hydra.job.num}"  # two trials may have the same settings, and need a folder each


def search(settings: Any, arguments: list[str]) -> list[JobReturn]:
    """Run as many trials as the study lacks.

    Args:
        settings: a `hydra_plugins.p2p_sweepers.Optuna`, after its `setup`.
        arguments: overrides, of which some may be spaces.

    Returns:
        What Hydra makes of each job.

    Raises:
        ValueError: there is nothing to search, a job's settings cannot be, or the study is another one or complete.
    """
    fixed, spaces = split([*arguments], settings.params, command=settings.config.hydra.job.name)
    distributions = {each.get_key_element(): distribution(each) for each in spaces}
    check_jobs(settings.config, [[*fixed, *job] for job in corners(distributions)], loader=settings.loader, apart=False)
    study = open_study(settings, [*fixed, *(each.input_line for each in spaces)])
    todo = settings.n_trials - len(ended(study))
    if todo <= 0:
        raise ValueError(
            f"the study in {settings.storage} has its {settings.n_trials} trials: for more of them use"
            f" hydra.sweeper.n_trials={2 * settings.n_trials} in the same command, for a new study another name="
        )
    at_a_time = settings.n_jobs if settings.n_jobs > 0 else available_cores()
    returns: list[JobReturn] = []
    while todo > 0 and not is_hopeless(study):
        trials = [study.ask(distributions) for _ in range(min(todo, at_a_time))]
        jobs = [[FOLDER, *fixed, *as_overrides(trial.params)] for trial in trials]
        for trial, job in zip(trials, settings.launcher.launch(jobs, initial_job_idx=trials[0].number), strict=True):
            tell(study, trial.number, job, folder=Path(settings.config.hydra.sweep.dir))
            returns.append(job)
        todo -= len(trials)
    raise_failure(returns)
    return returns


def split(arguments: list[str], params: dict[str, str], *, command: str) -> tuple[list[str], list[Override]]:
    """The overrides of every job, and the spaces: those that are typed, or else the preset's.

    Raises:
        ValueError: there is no space.
    """
    parser = OverridesParser.create()
    typed = parser.parse_overrides(arguments)
    spaces = [each for each in typed if each.is_sweep_override()]
    if not spaces and command == "train":
        spaces = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
        keys = {each.get_key_element() for each in typed}
        spaces = [each for each in spaces if each.is_sweep_override() and each.get_key_element() not in keys]
    if not spaces:
        raise ValueError("hydra/sweeper=optuna has nothing to search: give a setting a space, as in seed=range(0,5)")
    return [each.input_line for each in typed if each not in spaces], spaces


def distribution(space: Override) -> optuna.distributions.BaseDistribution:
    """What Optuna calls a space of Hydra's: choice(a,b), range(1,5), interval(1,200), tag(log, interval(1,200))."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = space.value()
    if isinstance(value, IntervalSweep):
        ends, log = (value.start, value.end), "log" in value.tags
        if all(isinstance(each, int) for each in ends):
            return IntDistribution(*ends, log=log)
        return FloatDistribution(*ends, log=log)
    words = list(space.sweep_string_iterator())
    if isinstance(value, RangeSweep) and all(isinstance(each, int) for each in (value.start, value.stop, value.step)):
        numbers = sorted(map(int, words))
        return IntDistribution(numbers[0], numbers[-1], step=abs(value.step))
    return CategoricalDistribution(words)


def corners(distributions: dict[str, Any]) -> list[list[str]]:
    """Settings for jobs that have both ends of each space, or all of its words, at least once."""
    ends = {
        key: each.choices if hasattr(each, "choices") else (each.low, each.high) for key, each in distributions.items()
    }
    most = max(map(len, ends.values()))
    return [as_overrides({key: values[min(at, len(values) - 1)] for key, values in ends.items()}) for at in range(most)]


def as_overrides(params: dict[str, Any]) -> list[str]:
    """A trial's settings as on a command line, fractions in four digits; words are in Hydra's quotes already."""
    return [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()]


def open_study(settings: Any, overrides: list[str]) -> optuna.Study:
    """The study of this sweep's folder, made if there is none.

    Trials of a sweep that was stopped count as failed, and others are made in their place.

    Raises:
        ValueError: it has other settings.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(settings.config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    name, mode = sweep.score_of(settings.config)
    study = optuna.create_study(
        storage=storage_of(settings.storage),
        study_name=str(folder),
        direction="maximize" if mode == "max" else "minimize",
        load_if_exists=True,
    )
    given = sorted([f"monitor={name}", f"monitor_mode={mode}", *overrides])
    before = study.user_attrs.get("settings", given)
    if before != given:
        differences = [each for each in before if each not in given] or ["none of", *set(given).difference(before)]
        raise ValueError(
            f"{settings.storage} is a study with {' '.join(differences)}: type the same settings to go on with it, or"
            " another name= for a new one"
        )
    study.set_user_attr("settings", given)
    for trial in study.trials:
        if not trial.state.is_finished():
            optuna.trial.Trial(study, trial._trial_id).set_user_attr(STOPPED, True)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    keep_records(study, folder)
    study.sampler = settings.sampler(seed=settings.seed + len(study.trials))  # going on must not repeat its first ones
    return study


def keep_records(study: optuna.Study, folder: Path) -> None:
    """Let the summary of this sweep also show the jobs that earlier calls have run for the study."""
    marks = [*study.user_attrs.get("sweeps", []), sweep.started.mark]
    study.set_user_attr("sweeps", marks)
    for job in sweep.jobs_of(folder).values():
        if job.get("sweep") in marks:
            sweep.write_job(folder, job | {"sweep": sweep.started.mark})


def storage_of(where: str) -> Any:
    """A file that several processes can append to, also over NFS, or a database by its address."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return where if "://" in where else JournalStorage(JournalFileBackend(where))


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that count: without those that were stopped."""
    return [trial for trial in study.trials if trial.state.is_finished() and STOPPED not in trial.user_attrs]


def is_hopeless(study: optuna.Study) -> bool:
    """Whether all trials fail."""
    from optuna.trial import TrialState

    states = [trial.state for trial in ended(study)]
    return len(states) >= HOPELESS and set(states) == {TrialState.FAIL}


def tell(study: optuna.Study, number: int, job: JobReturn, *, folder: Path) -> None:
    """Tell Optuna a job's score, and the summary which jobs were pruned."""
    from optuna.trial import TrialState

    done = job.status == JobStatus.COMPLETED and job._return_value is not None  # of an infer.py with nothing to do
    score = float(job._return_value) if done else math.nan
    epochs = study.trials[number].user_attrs.get(PRUNED)
    if not math.isfinite(score):
        study.tell(number, state=TrialState.FAIL)
    elif epochs is None:
        study.tell(number, score)
    else:
        study.tell(number, state=TrialState.PRUNED)
        for record in sweep.jobs_of(folder).values():
            if record.get("number") == number:
                sweep.write_job(folder, record | {"note": f"pruned after {counted(epochs, 'epoch')}"})
