"""What is imported to translate, and what to answer a mistake, in fresh interpreters: each import costs every start."""

import subprocess
import sys

import pytest
import torch

from p2p.deploy.backends import exported_program
from p2p.deploy.export import export
from p2p.models.unet import UNet
from tests.conftest import ROOT, picture

pytestmark = pytest.mark.slow

SECONDS = {"lightning", "torchvision", "torchmetrics", "matplotlib", "tensorboard", "torch._dynamo", "sympy", "triton"}


def infer(*arguments):
    """How it ends, what it says, and all that it imports."""
    command = [sys.executable, "-X", "importtime", "infer.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    names = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    assert "os" in names and "hydra" in names
    return (
        done.returncode,
        done.stdout + "\n".join(line for line in lines if not line.startswith("import time:")),
        names,
    )


@pytest.mark.parametrize(
    ("argument", "code", "said"),
    [
        ("--help", 0, "Translate images"),
        ("batchsize=8", 1, "error: batchsize is not in the config, did you mean batch_size"),
        ("codec.quality=high", 1, "error: codec.quality=high is not valid: use a whole number"),
        ("export=nowhere", 1, "error: there is no exported generator in nowhere"),
    ],
)
def test_a_mistake_is_answered_before_torch_is_imported(argument, code, said):
    status, text, names = infer(argument)
    assert status == code and said in text
    assert "torch" not in names


def test_translating_imports_nothing_of_training(tmp_path):
    folder = tmp_path / "export"
    (tmp_path / "last.ckpt").touch()
    facts = {
        "norm_stats": "instance",
        "direction": "AtoB",
        "checkpoint": tmp_path / "last.ckpt",
        "device": torch.device("cpu"),
    }
    network = UNet(image_size=32, width=4).eval()
    export(network, torch.rand(1, 3, 32, 32), folder, backend=exported_program.export, **facts)
    picture(40, 30).save(tmp_path / "in.png")
    arguments = [f"input={tmp_path}/in.png", f"run_dir={tmp_path}", "+pipeline=overlap", "pipeline.workers=1"]
    status, text, names = infer(*arguments)
    assert status == 0, text
    assert (tmp_path / "images/in.png").is_file() and (tmp_path / "gallery.png").is_file()
    assert not SECONDS.intersection(names)
    status, text, names = infer(f"input={tmp_path}/nowhere", f"run_dir={tmp_path}")
    assert status == 1 and f"error: {tmp_path}/nowhere" in text.replace("input=", "")
    assert "torch" not in names  # inputs are looked for before
