"""train.py and export.py on a GPU whose memory is full name a size that fits; networks here say so as torch would."""

import os
import runpy
import sys
from functools import wraps

import pytest
import torch

from p2p.deploy.backends import exported_program
from p2p.models.unet import UNet
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SMALL = ["image_size=32", "generator.width=8", "discriminator.width=8", "discriminator.layers=1", "trainer=cpu"]
FULL = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1.00 MiB is free."
)


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Run a command in this process; the sentence with which it ends."""

    def refusal_of(command, *overrides):
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *overrides])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / f"{command}.py"), run_name="__main__")
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return stopped.value.code

    return refusal_of


@pytest.fixture
def gpu_holds(monkeypatch):
    """Networks run out of memory with more than so many images; the sizes that were seen."""
    forward, seen = UNet.forward, []

    def holds(most):
        def limited(self, input_NCHW):
            seen.append(len(input_NCHW))
            if len(input_NCHW) > most:
                raise torch.OutOfMemoryError(FULL)
            return forward(self, input_NCHW)

        monkeypatch.setattr(UNet, "forward", limited)
        return seen

    return holds


def test_train_names_the_batch_size_that_fits(tmp_path, refusal, gpu_holds):
    seen = gpu_holds(5)
    name = os.path.relpath(tmp_path / "run", ROOT / "runs")
    sentence = refusal("train", f"name={name}", *SMALL, "batch_size=16", "epochs=1")
    assert sentence == (
        "error: the GPU's memory does not hold batch_size=16 (2.50 GiB more were needed, 1.00 MiB of 79.18 GiB are"
        " free): batch_size=4 fits, as a trial showed"
    )
    assert seen[-5:] == [4] * 5  # training steps
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_train_names_none_where_none_fits(tmp_path, refusal, gpu_holds):
    gpu_holds(0)
    name = os.path.relpath(tmp_path / "run", ROOT / "runs")
    for batch_size, end in (
        (2, "and not even batch_size=1, as a trial showed: use a smaller image_size or network"),
        (1, "use a smaller batch_size or image_size, or end other programs that use this GPU"),
    ):
        sentence = refusal("train", f"name={name}", *SMALL, f"batch_size={batch_size}")
        assert sentence.startswith("error: the GPU's memory") and end in sentence


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run's folder as train.py leaves it, as far as export.py looks: the name of the run."""
    name = os.path.relpath(tmp_path / "run", ROOT / "runs")
    monkeypatch.setattr(sys, "argv", ["train.py", f"name={name}", *SMALL, "epochs=1", "+trainer.limit_train_batches=1"])
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    return name


def test_export_names_the_largest_batch_that_fits(trained, tmp_path, refusal, monkeypatch):
    export, seen = exported_program.export, []

    @wraps(export)
    def limited(generator, example, folder, *, max_batch, min_batch=1, **options):
        seen.append((min_batch, max_batch))
        if max_batch > 9:
            raise ValueError("cannot build this generator") from torch.OutOfMemoryError(FULL)
        return export(generator, example, folder, min_batch=min_batch, max_batch=max_batch)

    monkeypatch.setattr(exported_program, "export", limited)
    both = ["backend.min_batch=16", "backend.max_batch=32"]
    sentence = refusal("export", f"name={trained}", "cache_dir=null", "backend=exported_program", *both)
    assert sentence.endswith(" free): backend.max_batch=8 fits, as a trial showed")
    assert seen == [(16, 32), (16, 16), (8, 8)]
    only = ["backend=fastest", "backend.backends=[exported_program]", "batch_size=12"]
    sentence = refusal("export", f"name={trained}", "cache_dir=null", *only)
    assert sentence.endswith(" free): batch_size=6 fits, as a trial showed")
    assert {path.name for path in (tmp_path / "run").iterdir()}.isdisjoint({"export", "export.partial"})
