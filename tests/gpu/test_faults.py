"""Faults of a GPU, caused for real: kernels that fail, kills, GPUs that are not there, damaged JPEG files.

Each command is a process of its own, because a kernel that fails takes its process's GPU along.
"""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.gpu.gpu_processes import (
    OVERLAP,
    SMALL,
    ended,
    infer,
    pictures,
    run,
    start,
    until_memory_is_back,
    used,
    whole,
)
from tests.pipelines.conftest import files

pytestmark = pytest.mark.gpu

BAD_INDEX = "torch.zeros(4, device='cuda')[torch.full((1,), 99, device='cuda')]"  # a device-side assert
WILD_WRITE = (
    "torch.cuda._compile_kernel('extern \"C\" __global__ void wild(float* x) { x[1ull << 40] = 1; }', 'wild')"
    "(grid=(1, 1, 1), block=(1, 1, 1), args=[torch.zeros(4, device='cuda')])"
)
COMMAND = """
import sys, time, torch
from p2p.system.signals import stoppable
with stoppable():
    from p2p.commands.start import run_command
    {change}
    run_command("{command}", sys.argv[1:])
"""
FAILS_IN_INFER = """
    from p2p.deploy.engine import Engine
    run, calls = Engine.frames, []
    def fails(self, images):
        calls.append(1)
        if len(calls) == 7:
            {cause}
        return run(self, images)
    Engine.frames = fails
"""
FAILS_IN_TRAINING = """
    from p2p.training.pix2pix import Pix2Pix
    step = Pix2Pix.training_step
    def fails(self, batch, batch_idx):
        if self.trainer.current_epoch == 1 and batch_idx == 5:
            {cause}
        return step(self, batch, batch_idx)
    Pix2Pix.training_step = fails
"""
SAYS_WHEN_IT_BUILDS = """
    import os
    from p2p.deploy.backends.torch_tensorrt import _import
    dynamo, name = _import()[0].dynamo, "convert_exported_program_to_serialized_trt_engine"
    convert = getattr(dynamo, name)
    def says(*arguments, **options):
        os.write(1, b"building\\n")  # where print would be silenced
        return convert(*arguments, **options)
    setattr(dynamo, name, says)
"""
RECORDS_SLOWLY = """
    begin = torch.cuda.graph.__enter__
    def slowly(self):
        begin(self)
        print("recording", flush=True)
        time.sleep(30)
    torch.cuda.graph.__enter__ = slowly
"""


@pytest.mark.parametrize(
    ("cause", "said"), [(BAD_INDEX, "device-side assert triggered"), (WILD_WRITE, "illegal memory access")]
)
def test_a_kernel_that_fails_in_mid_run(small, tmp_path, cause, said):
    before = used()
    script = COMMAND.format(command="infer", change=FAILS_IN_INFER.format(cause=cause))
    ways = {
        "sequential": ("plain", ["batch_size=8"]),
        "overlap": ("plain", OVERLAP),
        "decoded": ("plain", [*OVERLAP, "codec=nvjpeg"]),
        "graph": ("graph", [*OVERLAP, "codec=nvjpeg"]),
    }
    running = {
        name: start("-c", script, *infer(small / "in", small / program, tmp_path / name, *more)[1:])
        for name, (program, more) in ways.items()
    }
    for name, process in running.items():
        out = ended(process, seconds=90)
        assert process.returncode == 1
        assert "Traceback" not in out and out.count("error: the GPU failed (") == 1
        assert said in out and "skip_existing=true" in out
        whole(tmp_path / name)
    until_memory_is_back(before)


def test_a_kernel_that_fails_in_training(tmp_path):
    script = COMMAND.format(command="train", change=FAILS_IN_TRAINING.format(cause=BAD_INDEX))
    name = f"name={os.path.relpath(tmp_path / 'run', ROOT / 'runs')}"
    out = run("-c", script, name, *SMALL, "epochs=3", "batch_size=8", code=1)
    assert "error: the GPU failed (" in out and "device-side assert triggered" in out
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 0
    run("train.py", name, "ckpt_path=last")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_kill_while_an_engine_is_built(trained, number, code):
    folder, name = trained
    run("export.py", name, "backend=eager", "min_psnr=0")
    kept, before = files(folder / "export"), used()
    script = COMMAND.format(command="export", change=SAYS_WHEN_IT_BUILDS)
    process = start("-c", script, name, "backend=torch_tensorrt", "min_psnr=0", "cache_dir=null")
    while (line := process.stdout.readline()) != "building\n":
        assert line
    time.sleep(0.3)
    process.send_signal(number)
    sent = time.monotonic()
    out = ended(process)
    print(f"{number.name}: it ended {time.monotonic() - sent:.1f} s later")
    assert process.returncode == code and "Traceback" not in out
    assert files(folder / "export") == kept
    until_memory_is_back(before)
    run("export.py", name, "backend=eager", "min_psnr=0")  # which clears away what a kill has left
    assert [path.name for path in folder.iterdir() if "export" in path.name] == ["export"]
    shutil.rmtree(folder / "export")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_kill_while_a_graph_is_recorded(small, tmp_path, number, code):
    before = used()
    script = COMMAND.format(command="infer", change=RECORDS_SLOWLY)
    process = start("-c", script, *infer(small / "in", small / "graph", tmp_path / "out", *OVERLAP)[1:])
    while (line := process.stdout.readline()) != "recording\n":
        assert line
    process.send_signal(number)
    out = ended(process, seconds=20)
    assert process.returncode == code and "Traceback" not in out
    assert whole(tmp_path / "out") == 0
    until_memory_is_back(before)


def test_gpus_that_are_not_there(small, tmp_path):
    arguments = infer(small / "in", small / "plain", tmp_path / "out")
    running = []
    for setting, visible, said in (
        ("device=cuda", "", "device=cuda cannot be used, because CUDA_VISIBLE_DEVICES='' hides every GPU"),
        ("device=cuda:1", "0", "device=cuda:1 asks for cuda:1, and this machine has 1 GPU, cuda:0"),
        ("trainer=gpu", "", "trainer.accelerator=gpu cannot be used, because CUDA_VISIBLE_DEVICES='' hides every GPU"),
        ("trainer.devices=[1]", "0", "trainer.devices asks for cuda:1, and this machine has 1 GPU, cuda:0"),
        ("trainer.devices=2", "0", "trainer.devices asks for cuda:1, and this machine has 1 GPU, cuda:0"),
    ):
        name = f"name={os.path.relpath(tmp_path / f'run{len(running)}', ROOT / 'runs')}"
        command = arguments if setting.startswith("device") else ["train.py", name]
        running.append((said, start(*command, setting, CUDA_VISIBLE_DEVICES=visible)))
    for said, process in running:
        out = ended(process)
        assert process.returncode == 1 and f"error: {said}" in out
        assert "Traceback" not in out and "Warning" not in out
    out = run(*arguments, CUDA_VISIBLE_DEVICES="")
    assert out.count("on the CPU, because CUDA_VISIBLE_DEVICES='' hides every GPU") == 1
    assert "Warning" not in out
    assert whole(tmp_path / "out") == 400


def test_the_second_of_two_gpus(small, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    for codec in ("fast", "nvjpeg"):
        for device in ("cuda:0", "cuda:1"):
            more = [*OVERLAP, f"codec={codec}", f"device={device}"]
            run(*infer(small / "in", small / "plain", tmp_path / codec / device[-1], *more))
        assert pictures(tmp_path / codec / "0") == pictures(tmp_path / codec / "1")
    name = f"name={os.path.relpath(tmp_path / 'run', ROOT / 'runs')}"
    assert "training on cuda:1" in run("train.py", name, *SMALL, "epochs=1", "batch_size=8", "trainer.devices=[1]")


def test_two_processes_on_one_gpu(small, tmp_path):
    more = [*OVERLAP, "codec=nvjpeg"]
    two = [start(*infer(small / "in", small / "plain", tmp_path / name, *more)) for name in ("one", "other")]
    for process in two:
        assert "400 images written" in ended(process) and process.returncode == 0
    assert pictures(tmp_path / "one") == pictures(tmp_path / "other")


def test_damaged_jpegs_in_a_batch_that_the_gpu_decodes(small, tmp_path):
    """The other images are what they are without them.

    What of a damaged one becomes is the decoder's: data that are wrong, and end as they should, it was seen to decode
    to pixels that differ from batch to batch, without a word.
    """
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    rng = np.random.default_rng(0)
    for index, path in enumerate(sorted((small / "in").iterdir())[:60]):
        shutil.copy(path, mixed)
        data = path.read_bytes()
        scan, half = data.index(b"\xff\xda") + 14, len(data) // 2
        damaged = {
            0: data[:half],
            6: data[:half] + data[-2:],
            12: data[:scan] + bytes(len(data) - scan - 2) + data[-2:],
            18: data[:scan] + rng.bytes(len(data) - scan - 2) + data[-2:],
            24: data[:2],
            30: b"",
            36: rng.bytes(3000),
            42: data[:20] + rng.bytes(300) + data[320:],
            48: data[:scan],
            54: data.replace(b"\x08\x00\x40\x00\x40", b"\x08\xff\xff\xff\xff"),  # its size
        }
        if index in damaged:
            (mixed / f"{index:03d}x.jpg").write_bytes(damaged[index])
    more = ["batch_size=8", "codec=nvjpeg"]
    run(*infer(small / "in", small / "plain", tmp_path / "good", "+pipeline=overlap", *more))
    expected = pictures(tmp_path / "good")
    for name in ("sequential", "overlap"):
        out = run(*infer(mixed, small / "plain", tmp_path / name, f"+pipeline={name}", *more), code=1)
        assert " images failed: " in out
        others = {name: data for name, data in pictures(tmp_path / name).items() if "x" not in name}
        assert len(others) == 60 and all(expected[name] == data for name, data in others.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"gpu": "NVIDIA L4", "architecture": "8.9"},
            "was made on NVIDIA L4 (compute capability 8.9) and cannot run on",
        ),
        ({"versions": {"torch": "9.9.0"}}, "was made with torch 9.9.0, which does not fit what is installed here"),
    ],
)
def test_a_program_of_another_gpu_or_library(small, tmp_path, change, said):
    shutil.copytree(small / "graph", tmp_path / "program")
    manifest = json.loads((tmp_path / "program/manifest.json").read_text())
    manifest["program"].update(change)
    (tmp_path / "program/manifest.json").write_text(json.dumps(manifest))
    out = run(*infer(small / "in", tmp_path / "program", tmp_path / "out"), code=1)
    assert said in out and "export again on this machine" in out
