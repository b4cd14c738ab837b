"""A run that is resumed goes on with its own settings, and with what is typed now on top of them."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from p2p.config.cli import CONF
from p2p.config.resume import as_hydra_takes_them, resumed_settings, what_is_kept
from p2p.run.leaves import leaves
from p2p.run.record import as_record, load_record, read_record

# What came after that record and does nothing by default, so that a run of before goes on without it.
LATER = re.compile(
    r"^data\.(range|target_range|percentiles|pages|labels|edges|alpha)$|^callbacks\.live\.|^model\.augment$"
    r"|\bdiscriminator\.spectral_norm$|\bgenerator\.resize_last$|\badversarial\.smoothing$"
)


@pytest.fixture
def run(tmp_path):
    """Of settings the folder of a run that was recorded with them; "early" records are resolved."""

    def recorded(*typed, name="run", early=False):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints/last.ckpt").touch()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [f"run_dir={folder}", *typed])
            OmegaConf.save(cfg if early else as_record(cfg), folder / "train.yaml", resolve=early)
        return folder

    return recorded


def resume(folder, *typed):
    """As the command does: the settings, and what is said of them beside the first line."""
    arguments, deletions = as_hydra_takes_them(["ckpt_path=last", *typed])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"run_dir={folder}", *arguments])
        cfg = resumed_settings(cfg, [f"run_dir={folder}", *arguments, *deletions])
        return cfg, what_is_kept(cfg, folder / "checkpoints/last.ckpt")[1:]


def test_a_record_of_before_the_modules_moved(run):
    folder = run("callbacks=ema")
    expected, path = load_record(folder / "train.yaml"), folder / "train.yaml"
    path.write_text(path.read_text().replace("p2p.training.", "p2p."))
    assert "_target_: p2p.pix2pix.Pix2Pix" in path.read_text() and "_target_: p2p.callbacks.ema" in path.read_text()
    assert load_record(path) == expected


def test_a_record_of_before_the_gpu_resized_by_itself(run):
    """transform=cvcuda was a choice; in training it was torchvision."""
    folder = run()
    expected, path = load_record(folder / "train.yaml"), folder / "train.yaml"
    path.write_text(path.read_text().replace(".torchvision.Torchvision", ".cvcuda.CvCuda"))
    assert "_target_: p2p.data.transforms.cvcuda.CvCuda\n" in path.read_text()
    assert load_record(path) == expected


@pytest.mark.parametrize("early", [False, True])
def test_a_record_of_before_losses_had_names_goes_on_as_todays_settings_would(early, run):
    """One that train.py of before has written, with what is typed below; early versions saved values alone."""
    folder = run()
    path = folder / "train.yaml"
    before = OmegaConf.load(Path(__file__).parent / "records/before_losses.yaml")
    OmegaConf.save(before, path, resolve=early)
    typed = ["reconstruction=l2", "scheduler=constant", "trainer=cpu", "image_size=64", "batch_size=4", "epochs=2"]
    typed += ["generator.width=4", "discriminator.width=4", "discriminator.layers=1", "~callbacks.samples", "~logger"]
    typed += ["norm_stats=running", "data.decode=cpu"]  # what auto stood for, and what alone there was
    typed += [f"+trainer.limit_{split}_batches={n}" for split, n in (("train", 4), ("val", 2))]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        today = compose("train", [f"run_dir={folder}", *typed, "trainer.log_every_n_steps=1", "ckpt_path=last"])
    cfg, said = resume(folder, "~logger")
    resumed, todays = (dict(leaves(OmegaConf.to_container(each, resolve=True))) for each in (cfg, today))
    assert resumed == {key: value for key, value in todays.items() if not LATER.search(key)}
    assert all(line.startswith("logger.") for line in said)
    cfg, said = resume(folder, "reconstruction=l1", "losses.l1.weight=5", "monitor=val/PSNR", "monitor_mode=max")
    assert list(cfg.model.losses) == ["l1"] and cfg.losses.l1.weight == 5 and cfg.callbacks.best.monitor == "val/PSNR"
    assert "losses.l2.distance._target_: torch.nn.MSELoss -> not set" in said


OWN = ["data=folder", "data.root=pairs", "data.val=test", "image_size=64", "batch_size=3", "epochs=7", "optimizer.lr=1"]
OWN += [
    "reconstruction=l2",
    "scheduler=step",
    "generator=resnet_6blocks",
    "callbacks=ema",
    "+trainer.min_epochs=2",
    "norm_stats=running",
]


@pytest.mark.parametrize("early", [False, True])
def test_nothing_typed_goes_on_with_the_runs_own_settings(early, run):
    folder = run(*OWN, early=early)
    before = OmegaConf.load(folder / "train.yaml")
    cfg, said = resume(folder)
    assert not said
    assert cfg.ckpt_path == "last" and before.ckpt_path is None
    before.ckpt_path = "last"
    assert OmegaConf.to_container(cfg, resolve=True) == OmegaConf.to_container(before, resolve=True)


@pytest.mark.parametrize("early", [False, True])
def test_a_typed_value_reaches_every_place_that_follows_from_it_and_is_said_once(early, run):
    cfg, said = resume(run("epochs=7", "batch_size=3", early=early), "epochs=9", "optimizer.lr=0.1", "batch_size=4")
    assert cfg.trainer.max_epochs == cfg.scheduler.epochs == cfg.model.scheduler.epochs == 9
    assert cfg.data.batch_size == cfg.model.batch_size == 4 and cfg.model.optimizer.lr == 0.1
    assert sorted(said) == ["batch_size: 3 -> 4", "epochs: 7 -> 9", "optimizer.lr: 0.0002 -> 0.1"]


def test_a_typed_value_wins_also_where_it_is_the_default(run):
    folder = run("epochs=7", "experiment=paper", "batch_size=4")
    assert resume(folder, "epochs=12")[1] == ["epochs: 7 -> 12"]
    assert resume(folder, "experiment=paper")[1] == ["batch_size: 4 -> 1", "epochs: 7 -> 200"]


def test_a_typed_option_replaces_the_runs_node_and_nothing_else(run):
    folder = run(*OWN)
    cfg, said = resume(folder, "scheduler=linear", "scheduler.decay_fraction=0.2", "data=facades")
    assert cfg.model.scheduler == {
        "_target_": "p2p.training.schedules.linear",
        "_partial_": True,
        "epochs": 7,
        "decay_fraction": 0.2,
        "constant_epochs": None,
        "decay_epochs": None,
    }
    assert cfg.data.root == "data/facades" and cfg.data.val == "val" and cfg.data.batch_size == 3
    assert "scheduler.step_size: 50 -> not set" in said and "scheduler.epochs: not set -> 7" in said
    cfg, said = resume(folder, "data=folder", "callbacks=[best_k]")  # data.root must be given, and the run has one
    assert cfg.data.root == "pairs" and "ema" not in cfg.callbacks and cfg.callbacks.best_k.save_top_k == 3
    cfg, said = resume(folder, "experiment=paper_l1", "reconstruction=none")
    assert cfg.adversarial is None and cfg.losses == {} and cfg.epochs == 200 and cfg.data.root == "pairs"


def test_settings_that_the_run_has_and_the_defaults_have_not(run):
    folder = run(*OWN)
    cfg, said = resume(folder, "scheduler.step_size=5", "callbacks.ema.decay=0.5", "trainer.min_epochs=3")
    assert (cfg.scheduler.step_size, cfg.callbacks.ema.decay, cfg.trainer.min_epochs) == (5, 0.5, 3)
    assert len(said) == 3
    cfg, said = resume(folder, "~callbacks.ema", "~logger", "+trainer.min_steps=4", "model.clip_norm=1")
    assert "ema" not in cfg.callbacks and "logger" not in cfg and cfg.trainer.min_steps == 4
    assert "callbacks.ema.decay: 0.999 -> not set" in said and "model.clip_norm: null -> 1" in said
    for typed in ("scheduler.stepsize=5", "model.optimizer.lr=1", "~callbacks.emma"):
        with pytest.raises(ValueError, match="is not among the settings of this run"):
            resume(folder, typed)
    assert "logger" not in resume(run("~logger", name="quiet"))[0]


def test_a_moved_run_and_a_renamed_one_are_todays(run, tmp_path):
    for early in (False, True):
        folder = run(name=f"early_{early}", early=early)
        moved = folder.rename(tmp_path / f"moved_{early}")
        cfg, said = resume(moved, "name=other")
        assert not said
        assert cfg.callbacks.last.dirpath == f"{moved}/checkpoints" and cfg.logger.csv.save_dir == str(moved)
        assert cfg.name == "other"


def test_an_edited_record_counts(run):
    folder = run(*OWN)
    path = folder / "train.yaml"
    path.write_text(path.read_text().replace("\nepochs: 7\n", "\nepochs: 8\n"))
    cfg, _ = resume(folder)
    assert cfg.epochs == cfg.trainer.max_epochs == read_record(folder).trainer.max_epochs == 8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1\nb: 2", "train.yaml, line 2 cannot be read as YAML"),
        ("\x00", "train.yaml cannot be read as YAML"),
        ("", "train.yaml holds no settings of a training"),
        ("- 1", "train.yaml holds no settings of a training"),
    ],
)
def test_a_damaged_record_gets_a_sentence(text, sentence, run):
    folder = run()
    (folder / "train.yaml").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        resume(folder)


def test_the_record_keeps_what_depends_on_the_machine_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("PAIRS", "here")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["run_dir=${oc.env:PAIRS}", "data.root=${oc.env:PAIRS}", "trainer=cpu"])
        OmegaConf.save(as_record(cfg), tmp_path / "train.yaml")
    monkeypatch.delenv("PAIRS")
    record = load_record(tmp_path / "train.yaml")
    assert record.data.root == "here" and record.run_dir == "here" and record.trainer.precision == "32-true"
    assert OmegaConf.to_container(record, resolve=False)["trainer"]["max_epochs"] == "${epochs}"


def test_norm_stats_of_an_early_record_stay_what_they_were(run):
    folder = run("batch_size=1", early=True)
    assert resume(folder, "batch_size=4")[0].norm_stats == "instance"
    assert resume(folder, "batch_size=4", "norm_stats=auto")[0].norm_stats == "auto"


def test_what_starts_a_run_does_not_go_on_with_one(run):
    with pytest.raises(ValueError, match="init_from starts a run and ckpt_path continues one: leave one of them"):
        resume(run(), "init_from=latest_net_G.pth")


def test_without_a_record_it_is_said_that_the_defaults_count(run):
    folder = run()
    (folder / "train.yaml").unlink()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        typed = [f"run_dir={folder}", "ckpt_path=last"]
        cfg = resumed_settings(compose("train", typed), typed)
    (line,) = what_is_kept(cfg, folder / "checkpoints/last.ckpt")
    assert "there is no train.yaml" in line and "data.root=data/samples" in line


def test_the_record_beside_the_checkpoint_counts_and_the_run_that_is_replaced_is_named(run):
    one, other = run("epochs=3", name="one"), run("epochs=5", name="other")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        typed = [f"run_dir={other}", f"ckpt_path={one}/checkpoints/last.ckpt"]
        cfg = resumed_settings(compose("train", typed), typed)
    assert cfg.epochs == 3 and cfg.run_dir == str(other)
    assert "other/checkpoints will be replaced" in what_is_kept(cfg, one / "checkpoints/last.ckpt")[-1]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for what, sentence in ((one, "is a folder: name a checkpoint"), ("nowhere", "there is no checkpoint nowhere")):
            cfg = compose("train", [f"run_dir={other}", f"ckpt_path={what}"])
            with pytest.raises(ValueError, match=sentence):
                resumed_settings(cfg, [])
        with pytest.raises(ValueError, match="ckpt_path=True is not valid: use last, best or the path"):
            resumed_settings(compose("train", [f"run_dir={other}", "ckpt_path=true"]), [])
