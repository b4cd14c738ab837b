"""Every YAML of conf/ composes into the command it belongs to, and what it describes can be made."""

from importlib.util import find_spec

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import p2p.training.each_network  # noqa: F401  (it registers the strategy of trainer=ddp)
from p2p.config.cli import CONF, explain
from p2p.config.help import help_page
from tests.losses.test_perceptual import vgg19_file

COMMANDS = ("train", "export", "infer", "serve")
HOME = {
    "backend": "export",
    "codec": "infer",
    "pipeline": "infer",
    "profile": "infer",
}  # the command of a group, else train
NEEDS = {  # packages of extras, without which an option says what to install
    ("logger", "wandb"): "wandb",
    ("logger", "mlflow"): "mlflow",
    ("callbacks", "perceptual"): "torch-fidelity",
}
SMALL = {
    "generator": ["generator.width=4"],
    "discriminator": ["discriminator.width=4"],
    "model": ["generator.width=4", "discriminator.width=4"],
    "data": ["data.root=data/samples"],
    ("callbacks", "freeze"): ["init_from=runs/default"],
    ("generator", "unet_lab"): ["data.input_channels=1"],
}
OPTIONS = sorted(
    (path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if path.parent.name not in ("hydra", "experiment")
)


def compose_command(command, overrides=(), folder="unused"):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=[f"run_dir={folder}", *overrides])


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["/".join(option) for option in OPTIONS])
def test_every_option_instantiates(group, option, tmp_path, monkeypatch):
    monkeypatch.setattr("p2p.losses.perceptual._fetched", lambda: vgg19_file())
    command = HOME.get(group, "train")
    overrides = [f"{group}={option}", *SMALL.get(group, []), *SMALL.get((group, option), [])]
    if group == "trainer" and option == "gpu":
        overrides.append("trainer.accelerator=cpu")  # the rest of it; the GPU itself is for make test-gpu
    cfg = compose_command(command, overrides, tmp_path)
    if (group, option) in NEEDS and find_spec(NEEDS[group, option].replace("-", "_")) is None:
        with pytest.raises(InstantiationException) as raised:
            instantiate(cfg[group], _convert_="all")
        sentence = explain(raised.value, command)
        package = NEEDS[group, option]
        needs = f"{group}.{option} needs the package {package}, which is not installed: pip install {package}"
        assert sentence.startswith(needs)
        assert f' = ["{package}>' in (CONF.parent / "pyproject.toml").read_text()
        return
    if group == "reconstruction":
        assert cfg.losses == compose_command(command, [f"losses={option}"], tmp_path).losses
        return
    made = instantiate(cfg[group], _convert_="all")
    assert all(made.values()) if isinstance(made, dict) else (made is None) == (option == "none")
    if group == "data":
        assert made.dataset("val")[0].input_NCHW.shape == (1, 3, 128, 128)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_interpolation_is_left_open(command):
    OmegaConf.to_container(compose_command(command), resolve=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_group_and_every_key(command):
    text = "\n" + yaml.safe_load((CONF / f"hydra/help/{command}.yaml").read_text())["template"]
    cfg = compose_command(command)
    groups = [key for key in cfg if (CONF / key).is_dir()]
    missing = [name for name in groups if f"\n  {name} " not in text]
    assert not missing
    plain = set(cfg) - set(groups) - {"run_dir", "export", "seed"}
    assert not [key for key in plain if key not in text]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_page_that_hydra_would_print(command):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, return_hydra_config=True)
        expected = GlobalHydra.instance().hydra.get_help(cfg.hydra.help, cfg, get_args_parser(), resolve=False)
    assert help_page(command) == expected


def test_root_keys_reach_every_part():
    cfg = compose_command("train", ["image_size=64", "batch_size=3", "epochs=7"])
    assert cfg.generator.image_size == cfg.transform.image_size == cfg.model.generator.image_size == 64
    assert cfg.data.batch_size == cfg.model.batch_size == 3
    assert cfg.trainer.max_epochs == cfg.scheduler.epochs == 7


def test_a_pipelines_own_keys_can_be_overridden():
    cfg = compose_command("infer", ["pipeline=overlap", "pipeline.slots=6", "batch_size=8"])
    assert instantiate(cfg.pipeline).keywords["slots"] == 6


@pytest.mark.parametrize("name", ["facades", "maps", "cityscapes", "edges2shoes", "edges2handbags", "night2day"])
def test_the_papers_sets_come_from_the_authors_server(name, tmp_path, monkeypatch):
    """What would be downloaded, and where to; nothing is, because in the other tests the folder is there."""
    asked = []
    monkeypatch.setattr("p2p.data.download.download", lambda url, path, **_: asked.append((url, path)))
    data = instantiate(compose_command("train", [f"data={name}", f"data.root={tmp_path}/{name}"]).data, _convert_="all")
    with pytest.raises(FileNotFoundError):  # the file that was not downloaded
        data.prepare_data()
    server = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets"
    assert asked == [(f"{server}/{name}.tar.gz", tmp_path / f"{name}.tar.gz.partial")]
