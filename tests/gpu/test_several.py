"""Two GPUs: images by both, and steps that are those of one."""

import os
import signal
import time

import pytest
import torch

from tests.conftest import ROOT
from tests.gpu.gpu_processes import OVERLAP, SMALL, ended, infer, pictures, run, start
from tests.pipelines.conftest import children

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs")]


def test_two_gpus_write_the_bytes_of_one(small, tmp_path):
    """Also where one process is killed. With `eager` they need not: cuDNN chooses its kernels in each process anew."""
    run(*infer(small / "in", small / "plain", tmp_path / "one", *OVERLAP, "codec=nvjpeg"))
    out = run(*infer(small / "in", small / "plain", tmp_path / "two", *OVERLAP, "codec=nvjpeg", "devices=2"))
    assert "400 images written" in out and out.count("┏") == 1 and "lost" not in out
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    process = start(*infer(small / "in", small / "plain", tmp_path / "three", *OVERLAP, "codec=fast", "devices=[1,0]"))
    while len(list((tmp_path / "three").glob("*.png"))) < 8:
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(min(children(process.pid)), signal.SIGKILL)
    assert "is lost (its process was ended by SIGKILL" in (out := ended(process)) and "400 images written" in out
    assert process.returncode == 0 and len(pictures(tmp_path / "three")) == 400


def test_two_gpus_write_the_bytes_of_one_at_the_inputs_sizes(small, tmp_path):
    options = [*OVERLAP, "codec=fast", "size=tile"]
    run(*infer(small / "in", small / "plain", tmp_path / "one", *options))
    out = run(*infer(small / "in", small / "plain", tmp_path / "two", *options, "devices=2"))
    assert "400 images written" in out and "lost" not in out
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")


def test_a_third_gpu_is_refused(small, tmp_path):
    count = torch.cuda.device_count()
    out = run(*infer(small / "in", small / "plain", tmp_path / "out", *OVERLAP, f"devices={count + 1}"), code=1)
    assert f"error: devices={count + 1} asks for cuda:{count}, and this machine has {count} GPUs" in out


@pytest.mark.parametrize("capture", ["false", "true"])
def test_two_gpus_train_as_one(tmp_path, capture):
    found = {}
    for devices in (1, 2):
        (tmp_path / str(devices)).mkdir()
        run("-m", "tests.twenty_steps", devices, tmp_path / str(devices), "--capture", capture)
        for rank in range(devices):
            found[devices, rank] = torch.load(tmp_path / str(devices) / f"rank_{rank}.pt", weights_only=True)
    one, first, second = found.values()
    assert first["replayed"] == one["replayed"] == ([False] * 3 + [True] * 17 if capture == "true" else [False] * 20)
    for mine, theirs in zip(first["losses"], one["losses"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())


def test_train_on_two_gpus(tmp_path):
    """The whole command, captured, with BatchNorm over both."""
    name = f"name={os.path.relpath(tmp_path / 'run', ROOT / 'runs')}"
    more = ["trainer=ddp", "trainer.devices=2", "trainer.sync_batchnorm=true", "model.capture=true", "epochs=2"]
    out = run("train.py", name, *SMALL, *more, "batch_size=4")
    assert out.count("training on ") == out.count("after training") == 1
    out = run("train.py", name, "ckpt_path=last", "epochs=3", "trainer.devices=1")
    assert "epoch   3/3" in out
