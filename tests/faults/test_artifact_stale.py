"""A program whose checkpoint a later training has replaced; settings that an export would not heed; lost weights."""

import shutil

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from p2p.commands.export import check_export
from p2p.commands.infer_settings import check_fresh
from p2p.config.cli import CONF
from p2p.deploy.backends import exported_program
from p2p.deploy.export import export, load_weights
from p2p.deploy.stale import facts_of, replaced_checkpoint
from p2p.interop.reference import to_reference
from p2p.models.unet import UNet


@pytest.fixture
def run(tmp_path):
    """A run's folder with a checkpoint and its program."""
    folder = tmp_path / "runs/x"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("last", "best"):
        (folder / f"checkpoints/{name}.ckpt").write_bytes(b"weights")
    make(folder, "last")
    return folder


def make(folder, name, output=None, facts=None):
    network, images = torch.nn.Conv2d(3, 3, 3, padding=1).eval(), torch.zeros(1, 3, 8, 8)
    export(
        network,
        images,
        output or folder / "export",
        backend=exported_program.export,
        norm_stats="running",
        direction="AtoB",
        checkpoint=folder / f"checkpoints/{name}.ckpt",
        checkpoint_facts=facts,
        device=torch.device("cpu"),
    )


def train_again(folder, name="last", data=b"WEIGHTS"):
    path = folder / f"checkpoints/{name}.ckpt"
    path.unlink()
    path.write_bytes(data)


def settings(folder, **changes):
    cfg = {"run_dir": str(folder), "export": str(folder / "export"), "stale": "refuse"} | changes
    return OmegaConf.create(cfg)


def test_a_replaced_checkpoint_is_refused_with_the_command_to_export_it(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parent.parent)
    folder = run.relative_to(run.parent.parent)
    check_fresh(settings(folder))
    train_again(run)
    match = (
        r"^runs/x/export was made from older weights than runs/x/checkpoints/last\.ckpt has now: export them with"
        r" python -m p2p export name=x, or add stale=use to use the old ones$"
    )
    with pytest.raises(ValueError, match=match):
        check_fresh(settings(folder))
    check_fresh(settings(folder, stale="use"))
    assert capsys.readouterr().out.endswith("has now; it is used because of stale=use\n")
    with pytest.raises(ValueError, match="stale=sure is not known: use refuse or use"):
        check_fresh(settings(folder, stale="sure"))
    make(run, "best")
    train_again(run, "last", b"more")
    check_fresh(settings(folder))  # of the best, which is the same
    train_again(run, "best")
    with pytest.raises(ValueError, match=r"best\.ckpt has now: .* p2p export name=x ckpt_path=best, or"):
        check_fresh(settings(folder))
    make(run, "last", output=run.parent / "elsewhere")
    train_again(run)
    with pytest.raises(ValueError, match=r"p2p export name=x output=runs/elsewhere, or"):
        check_fresh(settings(folder, export="runs/elsewhere"))


def test_what_is_not_stale(run, tmp_path):
    train_again(run, data=b"weights")  # at another time
    assert replaced_checkpoint(run / "export") is None
    run.rename(tmp_path / "moved")
    assert replaced_checkpoint(tmp_path / "moved/export") is None
    shutil.copytree(tmp_path / "moved", tmp_path / "copied")
    assert replaced_checkpoint(tmp_path / "copied/export") is None
    train_again(tmp_path / "copied")
    assert replaced_checkpoint(tmp_path / "copied/export") == tmp_path / "copied/checkpoints/last.ckpt"
    assert replaced_checkpoint(tmp_path / "moved/export") is None
    (tmp_path / "link").symlink_to(tmp_path / "copied/export")
    assert replaced_checkpoint(tmp_path / "link") is not None
    shutil.copytree(tmp_path / "copied/export", tmp_path / "deployed/model")
    assert replaced_checkpoint(tmp_path / "deployed/model") is None
    (tmp_path / "copied/checkpoints/last.ckpt").unlink()
    assert replaced_checkpoint(tmp_path / "copied/export") is None


def test_a_checkpoint_that_did_not_change_is_not_read(run, monkeypatch):
    monkeypatch.setattr("p2p.deploy.stale.sha256", lambda path: pytest.fail("it was read"))
    assert replaced_checkpoint(run / "export") is None


def test_a_checkpoint_that_is_replaced_during_the_export_makes_it_stale(run):
    facts = facts_of(run / "checkpoints/last.ckpt")
    train_again(run)
    make(run, "last", facts=facts)
    assert replaced_checkpoint(run / "export") is not None


RECORD = OmegaConf.create({"image_size": 64, "data": {"direction": "BtoA"}})
UNHEEDED = {
    "image_size=256": r"image_size=256 applies only to a \.pth, and this run has image_size=64: leave it out",
    "direction=AtoB": r"direction=AtoB applies only to a \.pth, and this run has direction=BtoA",
    "batch_size=4": r"batch_size=4 applies only to backend=fastest: use backend\.max_batch=4",
    "min_psnr=nan": "min_psnr=nan is out of range: use 0 to 120 dB",
    "min_psnr=-5": "min_psnr=-5 is out of range",
    "min_psnr=1e9": r"min_psnr=1e\+09 is out of range",
    "backend.precision=fp17": r"backend\.precision=fp17 is not known",
    "backend.min_batch=9 backend.max_batch=8": r"backend\.min_batch=9 and backend\.max_batch=8 do not fit together",
    "backend.max_batch=0": r"backend\.min_batch=1 and backend\.max_batch=0 do not fit together",
    "backend=aot_inductor backend.rewrites=[first]": r"backend\.rewrites has first, which is not known",
    "backend._target_=mine.gpu.export": r"export needs the backend mine\.gpu, which .* P2P_TRUST=mine\.gpu in",
    "backend=fastest backend.backends=[eager,mine.gpu]": r"export needs the backend mine\.gpu",
    "backend=torch_tensorrt backend.tf32=true": r"backend\.tf32=true applies only to backend\.precision=fp32",
}
HEEDED = ["", "image_size=64 direction=BtoA", "backend=fastest batch_size=4", "min_psnr=0", "backend.precision=int8"]
HEEDED += ["backend=torch_tensorrt backend.tf32=true backend.precision=fp32"]


@pytest.mark.parametrize("overrides", [*UNHEEDED, *HEEDED])
def test_a_setting_that_would_not_be_heeded_is_refused_before_work(overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("export", overrides.split())
    if overrides in HEEDED:
        check_export(cfg, RECORD, of_a_run=True)
        return
    with pytest.raises(ValueError, match=f"^{UNHEEDED[overrides]}"):
        check_export(cfg, RECORD, of_a_run=True)
    if overrides.startswith(("image_size", "direction")):
        check_export(cfg, RECORD, of_a_run=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["trained", "ema", "buffer", "pth"])
def test_weights_that_are_not_finite_are_not_exported(what, value, tmp_path):
    generator = UNet(image_size=32, width=4)
    good, bad = generator.state_dict(), {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    name = "down.1.2.running_var" if what == "buffer" else "up.0.1.weight"
    bad[name].view(-1)[-1] = value
    path = tmp_path / f"x.{'pth' if what == 'pth' else 'ckpt'}"
    if what == "pth":
        generator.load_state_dict(bad)
        torch.save(to_reference(generator), path)
    else:
        trained = good if what == "ema" else bad
        averaged = {"ema": {"generator": bad}} if what == "ema" else {}
        torch.save({"state_dict": {f"generator.{key}": each for key, each in trained.items()}} | averaged, path)
    weights = "ema" if what == "ema" else "trained"
    match = rf"^{path} holds weights that are not finite \({name}\), .*: use an earlier checkpoint, such as ckpt_path="
    with pytest.raises(ValueError, match=match):
        load_weights(UNet(image_size=32, width=4), path, weights=weights)
    if what == "ema":
        load_weights(UNet(image_size=32, width=4), path)
