"""A sweep whose settings Optuna proposes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import OmegaConf

from p2p.config import sweep
from p2p.config.search import as_overrides, corners, distribution, search, split
from p2p.config.sweep import Started, jobs_of, write_job
from p2p.training.callbacks.prune import Prune

optuna = pytest.importorskip("optuna", reason="the extra sweeps is not installed")
CONFIG = {"monitor": "val/L1", "monitor_mode": "min", "hydra": {"job": {"name": "train"}}}


class Settings:
    """What the plugin is to `search`: a launcher whose jobs are calls of a function of their settings."""

    def __init__(self, folder, job, *, n_trials=8, n_jobs=2, mode="min"):
        self.n_trials, self.n_jobs, self.storage, self.seed = n_trials, n_jobs, str(folder / "study.journal"), 0
        self.params, self.loader, self.launcher, self.job = {"x": "interval(0.0, 1.0)"}, None, self, job
        self.config = OmegaConf.merge(CONFIG, {"monitor_mode": mode, "hydra": {"sweep": {"dir": str(folder)}}})
        self.launched = []

    def sampler(self, *, seed):
        return optuna.samplers.RandomSampler(seed=seed)

    def launch(self, jobs, *, initial_job_idx):
        returns = []
        for number, (folder, *overrides) in enumerate(jobs, start=initial_job_idx):
            assert folder == "hydra.sweep.subdir=${hydra.job.num}"  # the same settings twice are two folders
            self.launched.append((number, overrides))
            done = JobReturn(status=JobStatus.COMPLETED)
            try:
                done.return_value = self.job(dict(each.split("=") for each in overrides))
            except ValueError as error:
                done.return_value, done.status = error, JobStatus.FAILED
            write_job(self.folder, {"sweep": sweep.started.mark, "number": number, "score": None, "reason": None})
            returns.append(done)
        return returns

    @property
    def folder(self):
        return Path(self.config.hydra.sweep.dir)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.setattr("p2p.config.search.check_jobs", lambda *_, **__: None)
    monkeypatch.setattr(sweep, "started", Started(tmp_path, "first"))


def study_of(settings):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(settings.storage))
    return optuna.load_study(study_name=str(settings.folder), storage=storage)


@pytest.mark.parametrize(
    ("words", "same"),
    {
        "choice(1,b)": optuna.distributions.CategoricalDistribution(["1", "b"]),
        "png,jpg": optuna.distributions.CategoricalDistribution(["png", "jpg"]),
        "range(1,5)": optuna.distributions.IntDistribution(1, 4),
        "range(0,10,4)": optuna.distributions.IntDistribution(0, 8, step=4),
        "int(interval(1,200))": optuna.distributions.IntDistribution(1, 200),
        "interval(0.5,2.5)": optuna.distributions.FloatDistribution(0.5, 2.5),
        "tag(log,interval(1e-5,1e-3))": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
    }.items(),
)
def test_spaces_of_hydra_are_those_of_optuna(words, same):
    (space,) = OverridesParser.create().parse_overrides([f"key={words}"])
    assert distribution(space) == same


def test_a_space_that_is_typed_comes_in_the_place_of_the_presets():
    fixed, spaces = split(["seed=3"], {"x": "range(1,5)", "seed": "range(1,5)"}, command="train")
    assert (fixed, [each.key_or_group for each in spaces]) == (["seed=3"], ["x"])
    fixed, spaces = split(["seed=3", "y=1,2"], {"x": "range(1,5)"}, command="train")
    assert (fixed, [each.key_or_group for each in spaces]) == (["seed=3"], ["y"])
    with pytest.raises(ValueError, match="nothing to search"):
        split(["seed=3"], {"x": "range(1,5)"}, command="infer")


def test_both_ends_of_every_space_are_checked_before_the_first_job():
    spaces = {"x": distribution_of("range(1,5)"), "y": distribution_of("a,b,c")}
    assert corners(spaces) == [["x=1", "y=a"], ["x=4", "y=b"], ["x=4", "y=c"]]
    assert as_overrides({"x": 0.000123456}) == ["x=0.0001235"]


def distribution_of(words):
    return distribution(OverridesParser.create().parse_overrides([f"key={words}"])[0])


@pytest.mark.parametrize(("mode", "best"), [("min", min), ("max", max)])
def test_the_study_knows_each_jobs_score_and_which_is_best(tmp_path, mode, best):
    settings = Settings(tmp_path, lambda job: (float(job["x"]) - 0.3) ** 2, mode=mode)
    search(settings, [])
    assert [number for number, _ in settings.launched] == [*range(8)]
    found = [(float(job[0].split("=")[1]) - 0.3) ** 2 for _, job in settings.launched]
    assert study_of(settings).best_value == best(found)


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    def stops_at_the_sixth(job):
        if len(settings.launched) == 6:
            raise KeyboardInterrupt
        return float(job["x"])

    settings = Settings(tmp_path, stops_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        search(settings, [])
    monkeypatch.setattr(sweep, "started", Started(tmp_path, "second"))
    again = Settings(tmp_path, lambda job: float(job["x"]))
    search(again, [])
    states = [trial.state.name for trial in study_of(again).trials]
    assert states.count("COMPLETE") == 8 and states.count("FAIL") == 2  # two were running when it stopped
    assert {job[0] for _, job in settings.launched}.isdisjoint(job[0] for _, job in again.launched)
    assert {job["sweep"] for job in jobs_of(tmp_path).values()} == {"second"}  # the summary shows all
    with pytest.raises(
        ValueError, match=r"has its 8 trials: .* hydra.sweeper.n_trials=16 in the same command, for a new study another"
    ):
        search(again, [])
    with pytest.raises(ValueError, match=r"is a study with none of y=3: type the same settings"):
        search(again, ["y=3"])


def test_failed_jobs_do_not_end_it_and_a_search_of_which_all_fail_ends(tmp_path):
    def fails_now_and_then(job):
        if len(settings.launched) in (2, 5):
            raise ValueError("no")
        return float(job["x"])

    settings = Settings(tmp_path, fails_now_and_then)
    with pytest.raises(ValueError, match="no"):
        search(settings, [])
    assert len(settings.launched) == 8

    def fails(job):
        raise ValueError("never")

    (tmp_path / "other").mkdir()
    settings = Settings(tmp_path / "other", fails, n_jobs=1, n_trials=20)
    with pytest.raises(ValueError, match="never"):
        search(settings, [])
    assert len(settings.launched) == 3


CURVES = [  # scores of five epochs, lower is better
    ([5, 4, 3, 2, 1], None),
    ([7, 6, 5, 4, 3], None),  # worse, but two trials have to be complete before
    ([9, 9, 9, 9, 9], 3),  # two epochs are spared; then 9 > 4, the median of 3 and 5
    ([9, 9, 3.9, 9, 9], 4),  # 3.9 < 4; its best is 3.9 also after the next, where the median of 2 and 4 is 3
    ([1, 9, 9, 9, 9], None),  # its best is better than all
    ([9, 4, 4, 4, 4], None),  # the medians are 5 and 4: not worse
    ([9, 9, 9, 3.9, 9], 3),  # the median of 3, 5, 9 and 4 is 4.5
    ([4.4, 3.5, 3.5, 3.5, 9], None),  # worse after its last epoch: there is nothing to save
]


def trained(prune, scores, *, sign):
    """What Lightning does with the callback: as many epochs as it lets the training have."""
    trainer = SimpleNamespace(
        is_global_zero=True,
        sanity_checking=False,
        should_stop=False,
        max_epochs=len(scores),
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
    )
    prune.on_fit_start(trainer, None)
    for epoch, score in enumerate(scores):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/L1": torch.tensor(sign * float(score))}
        prune.on_validation_end(trainer, None)
        if trainer.should_stop:
            break
    return sign * score


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_trials_that_are_worse_than_the_median_are_pruned(tmp_path, mode, sign):
    """Worked out by hand, by the rule of docs/sweeps.md: of two complete trials and two epochs on."""

    def job(_):
        number = len(settings.launched) - 1
        pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
        prune = Prune(monitor="val/L1", pruner=pruner, trial=[settings.storage, str(tmp_path), number])
        return trained(prune, CURVES[number][0], sign=sign)

    settings = Settings(tmp_path, job, n_trials=len(CURVES), n_jobs=1, mode=mode)
    search(settings, [])
    trials = study_of(settings).trials
    expected = [None if epochs is None else f"pruned after {epochs} epochs" for _, epochs in CURVES]
    assert [job.get("note") for job in jobs_of(tmp_path).values()] == expected
    assert [trial.state.name for trial in trials] == ["PRUNED" if epochs else "COMPLETE" for _, epochs in CURVES]
    assert [len(trial.intermediate_values) for trial in trials] == [epochs or 5 for _, epochs in CURVES]
