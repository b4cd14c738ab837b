"""A sweep goes on after a job that failed, and says at its end what became of all."""

import csv
import os
import runpy
import subprocess
import sys

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from p2p.commands.results import Translated
from p2p.config.explain import explain
from p2p.config.sweep import take_gpu
from tests.conftest import ROOT


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """`sweep(main)` is one of infer.py over batch_size=1,2,3, whose jobs are calls of `main`; returns its rows."""

    def run(main, *words):
        monkeypatch.setattr("p2p.commands.infer.main", main)
        name = f"name={os.path.relpath(tmp_path, ROOT / 'runs')}"
        monkeypatch.setattr(sys, "argv", ["infer.py", "-m", *(words or ["batch_size=1,2,3"]), name])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        runpy.run_path(str(ROOT / "infer.py"), run_name="__main__")
        with (tmp_path / "sweep.csv").open() as file:
            return list(csv.DictReader(file))

    return run


def test_the_best_is_first(sweep, tmp_path, capsys):
    rows = sweep(lambda cfg: Translated(tmp_path, written=1, skipped=0, score=10.0 * cfg.batch_size))
    assert [(row["rank"], row["batch_size"], row["images/s"]) for row in rows] == [
        ("1", "3", "30.0"),
        ("2", "2", "20.0"),
        ("3", "1", "10.0"),
    ]
    assert "sweep of 3 jobs, the best first" in capsys.readouterr().out


def test_a_job_that_fails_stands_in_the_table_with_the_reason(sweep, tmp_path, capsys):
    def main(cfg):
        if cfg.batch_size == 2:
            raise ValueError("two is too many: use 1")
        return Translated(tmp_path, written=1, skipped=0, score=float(cfg.batch_size))

    with pytest.raises(SystemExit) as stopped:
        sweep(main)
    assert stopped.value.code.startswith("error: 1 of 3 jobs failed: batch_size=2: two is too many: use 1; ")
    said = capsys.readouterr()
    assert said.err == "error: two is too many: use 1\n" and "sweep of 3 jobs" in said.out  # nothing of Hydra's
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["batch_size"], row["reason"]) for row in rows] == [
        ("3", ""),
        ("1", ""),
        ("2", "two is too many: use 1"),
    ]


def test_batches_go_on_after_a_job_that_failed(sweep, capsys):
    """Also where none of the settings differ between them."""
    done = []

    def main(cfg):
        done.append(cfg.seed)
        raise ValueError("there is no folder called photos in this place: make one")

    for words, jobs, failed in (
        (
            ["seed=1,2,3", "hydra.sweeper.max_batch_size=1"],
            [1, 2, 3],
            "3 of 3 jobs failed: seed=1: there is no folder called",
        ),
        (["seed=4"], [4], "1 of 1 job failed: there is no folder called photos"),
    ):
        with pytest.raises(SystemExit, match=failed):
            sweep(main, *words)
        assert done == jobs
        done.clear()
        said = capsys.readouterr().out
        assert [f"row {row} failed: there is no folder called photos" in said for row in (1, 2, 3)] == [
            len(jobs) > 1
        ] * 3


def test_a_bug_keeps_its_stack_trace_and_the_table_is_shown_all_the_same(sweep, capsys):
    def main(cfg):
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        sweep(main)
    assert "sweep of 3 jobs" in capsys.readouterr().out


def test_ctrl_c_ends_the_sweep_and_shows_what_is_done(sweep, tmp_path, capsys):
    def main(cfg):
        if cfg.batch_size == 2:
            raise KeyboardInterrupt
        return Translated(tmp_path, written=1, skipped=0, score=1.0)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        sweep(main)
    out = capsys.readouterr().out
    assert "sweep of 2 jobs" in out and "it was stopped, or its process died" in " ".join(out.replace("│", " ").split())


def test_a_mistake_in_any_job_is_said_before_the_first_one(sweep, tmp_path, capsys):
    (tmp_path / ".sweep").mkdir()
    (tmp_path / ".sweep/000000.json").write_text("{}")  # of a sweep before
    for words, sentence in {
        ("batch_size=1,0",): "batch_size=0 is out of range: use 1 or more",
        ("codec=fast,fats",): "codec=fats is not known, did you mean fast",
        ("batch_size=1,2", f"output={tmp_path}/out"): "batch_size=1 ",
        ("hydra/launcher=jolib", "seed=1,2"): "hydra/launcher=jolib is not known, did you mean joblib",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            sweep(pytest.fail, *words)
        assert sentence in stopped.value.code, words
    assert {path.name for path in tmp_path.rglob("*")} == {".sweep", "000000.json"}


def test_jobs_of_infer_and_export_have_folders_of_their_own(sweep, tmp_path):
    outputs = []
    sweep(lambda cfg: outputs.append(cfg.output) or Translated(tmp_path, written=1, skipped=0, score=1.0))
    assert outputs == [str(tmp_path / f"batch_size-{size}/images") for size in (1, 2, 3)]


@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.soak)])
def test_processes_of_a_launcher_report_and_one_that_dies_is_named(launcher, tmp_path):
    """Real processes, of which the second dies after the first job has ended."""
    pytest.importorskip({"joblib": "joblib", "submitit_local": "submitit"}[launcher])
    script = tmp_path / "infer.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from p2p.commands.results import Translated\n"
        "from p2p.config.cli import run_command\n"
        "def summarize(folder, mark):\n"
        "    from p2p.report.sweep import summarize\n"
        "    return summarize(folder, mark)\n"
        "def main(cfg):\n"
        "    record = Path('runs/x/.sweep/000000.json')\n"
        "    while cfg.batch_size == 2 and not (record.exists() and '\"reason\": null' in record.read_text()):\n"
        "        time.sleep(0.01)\n"
        "    os._exit(7) if cfg.batch_size == 2 else None\n"
        "    return Translated(Path(cfg.output), written=1, skipped=0, score=float(cfg.batch_size))\n"
        "if __name__ == '__main__':\n"
        "    run_command('infer', sys.argv[1:], load=lambda: main, summarize=summarize)\n"
    )
    words = ["-m", f"hydra/launcher={launcher}", "batch_size=1,2", "name=x"]
    done = subprocess.run(
        [sys.executable, script, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: 1 of 2 jobs failed: batch_size=2: it was stopped, or its process died; " in done.stderr
    with (tmp_path / "runs/x/sweep.csv").open() as file:
        assert [(row["batch_size"], row["images/s"]) for row in csv.DictReader(file)] == [("1", "1.0"), ("2", "")]


def test_the_defaults_are_composed_once_for_all_jobs_and_again_for_the_next_command(sweep, tmp_path, monkeypatch):
    asked = []
    compose = hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda name, overrides: asked.append(overrides) or compose(name, overrides))
    for _ in range(2):
        sweep(lambda cfg: Translated(tmp_path, written=1, skipped=0, score=1.0), "codec=fast,pillow", "batch_size=1,2")
    assert asked == [["codec=fast"], ["codec=pillow"]] * 2


def test_a_job_of_joblib_sees_one_gpu_and_keeps_it(monkeypatch):
    monkeypatch.setattr("p2p.config.sweep.has_gpu", False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    take_gpu(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    take_gpu(0)  # the next job in this process, where CUDA has looked already
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    for plugin, package in {
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "hydra-joblib-launcher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "hydra-submitit-launcher",
        "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": "hydra-ray-launcher",
    }.items():
        with pytest.raises(RuntimeError) as raised:  # by Hydra, as if no plugin were there
            monkeypatch.setattr(Plugins.instance(), "class_name_to_class", {})
            Plugins.instance()._instantiate(OmegaConf.create({"_target_": plugin}))
        sentence = explain(raised.value, "train")
        assert sentence.endswith(f"needs the package {package}, which is not installed: pip install {package}")
        assert f'"{package}>=' in (ROOT / "pyproject.toml").read_text()


def test_hydras_own_sweeper_of_the_same_name_is_named(sweep, tmp_path):
    """As if hydra-optuna-sweeper were installed, whose settings Hydra would put beside ours."""
    node = {"defaults": [{"sampler": "tpe"}]}
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=node, provider="optuna_sweeper")
    try:
        with pytest.raises(SystemExit, match="pip uninstall hydra-optuna-sweeper"):
            sweep(pytest.fail, "hydra/sweeper=optuna", "seed=1,2")
    finally:
        del ConfigStore.instance().repo["hydra"]["sweeper"]["optuna.yaml"]
    assert not list(tmp_path.iterdir())


def test_hydras_plugins_have_the_settings_of_our_presets():
    """Settings that a plugin does not know would fail where the plugin is, and nowhere else."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
    from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf

    schemas = {"joblib": JobLibLauncherConf, "submitit_local": LocalQueueConf, "submitit_slurm": SlurmQueueConf}
    for name, schema in schemas.items():
        preset = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/hydra/launcher/{name}.yaml"), resolve=False)
        assert preset.keys() <= schema.__dataclass_fields__.keys()
        assert preset["_target_"] == schema._target_
