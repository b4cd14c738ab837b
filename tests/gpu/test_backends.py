"""CUDA graphs, and the backends that are not Torch-TensorRT, on a real GPU."""

import json
import re
import subprocess
import sys
import threading
from dataclasses import asdict
from functools import cache

import pytest
import torch
from torch import nn

from p2p.batch import from_frames, to_frames
from p2p.deploy import auto, cuda_graph, rewrite
from p2p.deploy.accuracy import psnr_db
from p2p.deploy.backends import aot_inductor, eager, exported_program, onnx, torch_tensorrt
from p2p.deploy.cuda_graph import Captured
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.unet import UNet
from tests.conftest import ROOT

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
FRESH = """
import importlib, json, pathlib, sys, torch
from p2p.deploy.manifest import Program
record, folder, inputs, outputs = sys.argv[1:]
made = Program(**json.loads(record))
backend = importlib.import_module(f"p2p.deploy.backends.{made.backend}")
program = backend.load(made, pathlib.Path(folder), device=torch.device("cuda"))
torch.save(program(torch.load(inputs).cuda()).cpu(), outputs)
assert not [module for module in sys.modules if module.startswith(("p2p.models", "p2p.training", "p2p.interop"))]
"""


def by_name(backend):
    return backend.__name__.rpartition(".")[2]


@cache
def view(norm_stats):
    """A network as it is deployed, in float32, before the rewrites."""
    torch.manual_seed(0)
    network = UNet(image_size=128, width=32)
    initialize(network, gain=0.05)
    for _ in range(50):
        network.train()(torch.randn(4, 3, 128, 128))
    return inference_view(network, norm_stats=norm_stats)


def rewritten(norm_stats):
    return rewrite.fold_batch_norm(view(norm_stats))


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return nn.functional.interpolate(torch.rand(8, 3, 8, 8) * 2 - 1, size=128, mode="bicubic").clamp(-1, 1)


class Counted:
    """A program that counts its calls, and computes 2 x + 1."""

    def __init__(self):
        self.calls = 0

    def __call__(self, input_NCHW):
        self.calls += 1
        return input_NCHW * 2 + 1


def test_a_graph_is_recorded_once_for_each_shape_and_its_outputs_stay():
    counted = Counted()
    run = Captured(counted, device=CUDA)
    inputs = [torch.randn(size, 3, 4, 4, device=CUDA) for size in (1, 3, 1, 3, 3)]
    outputs = [run(images) for images in inputs]  # the next replay overwrites the graph's output, but not these
    assert counted.calls == 2 * (cuda_graph.WARMUPS + 1)
    for images, output in zip(inputs, outputs, strict=True):
        assert torch.equal(output, images * 2 + 1)
    assert len({output.data_ptr() for output in outputs}) == len(outputs)


def test_a_graph_takes_pinned_host_memory_and_converts_it():
    run = Captured(Counted(), device=CUDA, dtype=torch.float16)
    for _ in range(3):
        images = torch.rand(2, 3, 4, 4).pin_memory()
        output = run(images)
        assert (output.dtype, output.device.type) == (torch.float16, "cuda")
        assert torch.equal(output.cpu(), (images.half() * 2 + 1))


def test_calls_on_several_streams_wait_for_each_other():
    """Each stream is given work that is slow first: whoever does not wait overwrites another's buffer."""
    run = Captured(Counted(), device=CUDA)
    inputs = [torch.full((1, 3, 512, 512), float(i), device=CUDA) for i in range(8)]
    run(inputs[0])
    slow = torch.randn(4096, 4096, device=CUDA)
    streams = [torch.cuda.Stream() for _ in inputs]
    torch.cuda.synchronize()
    outputs = []
    for i, (images, stream) in enumerate(zip(inputs, streams, strict=True)):
        with torch.cuda.stream(stream):
            for _ in range(8 - i):
                torch.mm(slow, slow)
            outputs.append(run(images))
    torch.cuda.synchronize()
    for images, output in zip(inputs, outputs, strict=True):
        assert torch.equal(output, images * 2 + 1)


def test_after_a_recording_that_failed_others_work():
    """As where memory runs out in it, after which infer.py goes on with smaller batches."""
    failed = []

    def program(input_NCHW):
        if torch.cuda.is_current_stream_capturing() and not failed:
            failed.append(input_NCHW.shape)
            torch.cuda.synchronize()
        return input_NCHW * 2 + 1

    run, before = Captured(program, device=CUDA), torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match="captur"):
        run(torch.randn(4, 3, 4, 4, device=CUDA))
    assert failed and torch.cuda.current_stream() == before
    for size in (2, 4, 2):
        images = torch.randn(size, 3, 4, 4, device=CUDA)
        assert torch.equal(run(images), images * 2 + 1)


def test_after_the_last_graph_programs_run_without(monkeypatch):
    monkeypatch.setattr(cuda_graph, "MAX_GRAPHS", 2)
    counted = Counted()
    run = Captured(counted, device=CUDA)
    for size in (1, 2, 3, 3, 1):
        images = torch.randn(size, 3, 4, 4, device=CUDA)
        assert torch.equal(run(images), images * 2 + 1)
    assert counted.calls == 2 * (cuda_graph.WARMUPS + 1) + 2


def test_other_threads_may_allocate_while_a_graph_is_recorded():
    stop, failures = threading.Event(), []

    def allocate():
        try:
            size = 1
            while not stop.is_set():
                torch.empty(size << 20, device=CUDA)
                torch.empty(1 << 16).pin_memory()
                size = size % 64 + 1
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=allocate)
    thread.start()
    try:
        run = Captured(Counted(), device=CUDA)
        for size in range(1, 9):
            images = torch.randn(size, 3, 64, 64, device=CUDA)
            assert torch.equal(run(images), images * 2 + 1)
    finally:
        stop.set()
        thread.join()
    assert not failures


@pytest.mark.parametrize("backend", [exported_program, eager, aot_inductor], ids=by_name)
@pytest.mark.parametrize(
    ("norm_stats", "min_batch", "max_batch"), [("instance", 4, 4), ("running", 1, 8)], ids=["static", "dynamic"]
)
def test_a_program_is_close_to_fp32(backend, norm_stats, min_batch, max_batch, images, tmp_path, capfd):
    """One test for all of it, because a build by AOT Inductor takes its time."""
    generator, folder = rewritten(norm_stats), tmp_path / "export"
    folder.mkdir()
    if reason := backend.unavailable():  # which a backend must say before it does any work
        with pytest.raises(ValueError, match=re.escape(reason)):
            backend.export(generator, images, folder)
        return
    batches = {"precision": "fp16"} if backend is exported_program else {}  # the others' default
    batches |= {"min_batch": min_batch, "max_batch": max_batch}
    program = backend.export(generator, images, folder, **batches)
    run = backend.load(program, folder, device=CUDA)
    assert capfd.readouterr() == ("", "")
    assert {(p.dtype, p.device.type) for p in generator.parameters()} == {(torch.float32, "cpu")}
    assert [path.name for path in folder.iterdir()] == [program.file]
    assert (program.dtype, program.min_batch, program.max_batch) == ("float16", min_batch, max_batch)
    assert program.gpu == (torch.cuda.get_device_name() if backend is aot_inductor else None)
    with torch.inference_mode():
        expected = view(norm_stats)(images)
        for size in {min_batch, max_batch, min(3, max_batch) if min_batch == 1 else max_batch}:
            batch = images[:size].to(CUDA, torch.float16)
            first, again = run(batch), run(batch)
            assert (first.dtype, first.device.type) == (torch.float16, "cuda")
            assert torch.equal(first, again)  # a recorded graph keeps its choice of kernels
            assert psnr_db(first.cpu(), expected[:size]).min() > 40
    if min_batch == max_batch and backend is not exported_program:
        torch.save(images[:4].half(), tmp_path / "inputs.pt")
        arguments = [json.dumps(asdict(program)), folder, tmp_path / "inputs.pt", tmp_path / "outputs.pt"]
        command = [sys.executable, "-c", FRESH, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("", "")
        assert psnr_db(torch.load(tmp_path / "outputs.pt"), expected[:4]).min() > 40
    if min_batch == max_batch and backend is aot_inductor:
        with pytest.raises(ValueError, match="takes batches of 4 to 4 images of 3x128x128 in float16, not 3 of"):
            run(images[:3].to(CUDA))
        assert torch.equal(run(images[:4].to(CUDA, torch.float16)), first)  # a refusal leaves nothing broken
        with pytest.raises(ValueError, match=r"generator.pt2 was compiled for cuda, not for cpu: export here"):
            aot_inductor.load(program, folder, device=torch.device("cpu"))


@pytest.mark.parametrize("backend", [exported_program, eager, aot_inductor], ids=by_name)
def test_a_program_of_frames_is_close_to_fp32(backend, images, tmp_path, capfd):
    generator, frames = rewrite.Frames(rewritten("instance")), to_frames(images)
    if reason := backend.unavailable():
        with pytest.raises(ValueError, match=re.escape(reason)):
            backend.export(generator, frames, tmp_path)
        return
    program = backend.export(generator, frames, tmp_path, precision="fp16", min_batch=1, max_batch=8)
    assert (program.dtype, program.precision) == ("uint8", "fp16")
    run = backend.load(program, tmp_path, device=CUDA)
    with torch.inference_mode():
        expected = view("instance")(from_frames(frames))
        for size in (1, 3, 8):
            first, again = run(frames[:size].to(CUDA)), run(frames[:size].to(CUDA))
            assert (first.dtype, first.shape, first.is_contiguous()) == (torch.uint8, (size, 128, 128, 3), True)
            assert torch.equal(first, again)
            assert psnr_db(from_frames(first.cpu()), expected[:size]).min() > 40
    assert capfd.readouterr() == ("", "")


def test_autotuned_kernels_compute_the_same_in_silence(images, tmp_path, capfd):
    if reason := aot_inductor.unavailable():
        with pytest.raises(ValueError, match=re.escape(reason)):
            aot_inductor.export(nn.Identity(), images, tmp_path, max_autotune=True)
        return
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 3, 3, padding=1), nn.Tanh())
    program = aot_inductor.export(network, images, tmp_path, min_batch=4, max_batch=4, max_autotune=True)
    assert capfd.readouterr() == ("", "")
    run = aot_inductor.load(program, tmp_path, device=CUDA)
    assert psnr_db(run(images[:4].to(CUDA)).cpu(), network(images[:4]).detach()).min() > 50


def test_auto_without_torch_tensorrt_is_eager(images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_tensorrt, "unavailable", lambda: "it is not installed")
    assert auto.export(rewritten("instance"), images, tmp_path).backend == "eager"


def test_onnx_runs_on_the_gpu_or_says_what_is_missing(images, tmp_path):
    if onnx.unavailable():
        with pytest.raises(ValueError, match=r"backend=onnx cannot be used, because .* pip install .*onnxruntime"):
            onnx.export(rewritten("instance"), images, tmp_path)
        return
    import onnxruntime

    with torch.inference_mode():
        expected = view("instance")(images)
    program = onnx.export(rewritten("instance"), images, tmp_path, max_batch=8)
    assert program.dtype == "float16"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ValueError, match="cannot run on device=cuda with this onnxruntime: pip install"):
            onnx.load(program, tmp_path, device=CUDA)
        return
    run = onnx.load(program, tmp_path, device=CUDA)
    for size in (1, 3, 8):
        output = run(images[:size].to(CUDA, torch.float16))
        assert output.device.type == "cuda"
        assert psnr_db(output.cpu(), expected[:size]).min() > 40
