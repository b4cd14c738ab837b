from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import p2p
from p2p.deploy.backends import exported_program
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.run.checkpoint import write_checkpoint
from p2p.run.record import as_record
from tests.test_configs import compose_command

CPU = torch.device("cpu")


def seeded(network, seed=0):
    """With weights of which the outputs are not grey."""
    torch.manual_seed(seed)
    initialize(network, gain=0.2)
    return network


def exported(folder, network, *, channels=3, size=(32, 32), max_batch=None, min_batch=1, **options):
    checkpoint = folder.parent / "last.ckpt"
    checkpoint.touch()
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CPU, "image_size": 32}
    backend = partial(exported_program.export, min_batch=min_batch, max_batch=max_batch)
    export(network, torch.rand(1, channels, *size), folder, backend=backend, **facts | options)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """An export for 32x32 pixels."""
    return exported(tmp_path_factory.mktemp("api") / "export", seeded(UNet(image_size=32, width=8)))


@pytest.fixture(scope="session")
def translate(folder):
    return p2p.load(str(folder), device="cpu")


def trained(run_dir, *overrides, names=("last", "best"), **more):
    """A run as train.py leaves one; returns the generators of its checkpoints."""
    cfg = compose_command("train", ["image_size=32", "generator.width=8", *overrides], run_dir)
    cfg.norm_stats = "instance" if cfg.norm_stats == "auto" else cfg.norm_stats
    (run_dir / "checkpoints").mkdir(parents=True)
    OmegaConf.save(as_record(cfg), run_dir / "train.yaml")
    generators = {}
    for seed, name in enumerate(names):
        generators[name] = seeded(instantiate(cfg.generator, _convert_="all"), seed)
        state = {f"generator.{key}": value for key, value in generators[name].state_dict().items()}
        write_checkpoint(run_dir / f"checkpoints/{name}.ckpt", {"state_dict": state, **more})
    return generators
