"""This project's own kernels on a real GPU, by the calls of the other backends."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from p2p.batch import from_frames, to_frames
from p2p.deploy.accuracy import psnr_db
from p2p.deploy.backends import triton
from p2p.deploy.kernels.tiles import candidates
from p2p.deploy.kernels.weights import weights_of
from p2p.deploy.rewrite import Frames, fold_batch_norm
from p2p.deploy.signature import Signature
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.unet import UNet
from tests.conftest import ROOT
from tests.gpu.test_backends import FRESH

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")


def view(norm_stats, **options):
    torch.manual_seed(0)
    network = UNet(**{"image_size": 128, "width": 32} | options)
    initialize(network, gain=0.05)
    size = options.get("image_size", 128)
    for _ in range(50):
        network.train()(torch.randn(4, 3, size, size))
    return inference_view(network, norm_stats=norm_stats)


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return nn.functional.interpolate(torch.rand(8, 3, 8, 8) * 2 - 1, size=128, mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize(
    ("norm_stats", "precision", "options", "least"),
    [
        ("running", "fp16", {}, 55),
        ("instance", "fp16", {}, 55),
        ("running", "bf16", {}, 38),
        ("instance", "fp16", {"skips": False, "depth": 5}, 55),
        ("running", "int8", {}, 35),
        ("instance", "int8", {}, 35),
        ("running", "fp8", {}, 30),
        ("instance", "fp8", {"skips": False, "depth": 5}, 30),
    ],
    ids=["running", "instance", "bf16", "no skips", "int8", "int8 instance", "fp8", "fp8 no skips"],
)
def test_a_program_is_close_to_fp32(norm_stats, precision, options, least, images, tmp_path, capfd):
    network = view(norm_stats, **options)
    program = triton.export(fold_batch_norm(network), images, tmp_path, precision=precision, min_batch=1, max_batch=8)
    run = triton.load(program, tmp_path, device=CUDA)
    dtype = getattr(torch, program.dtype)
    with torch.inference_mode():
        expected = network(images)
        for size in (8, 1, 3, 8):
            first, again = (run(images[:size].to(CUDA, dtype)) for _ in range(2))
            assert torch.equal(first, again)
            assert psnr_db(first.cpu(), expected[:size]).min() > least
        with pytest.raises(ValueError, match="takes batches of 1 to 8 images"):
            run(images[:1].expand(9, -1, -1, -1).to(CUDA, dtype))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("precision", "least"), [("fp16", 50), ("int8", 35)])
def test_a_program_of_frames_is_one_of_floats_between_conversions(precision, least, images, tmp_path):
    network, frames = view("running"), to_frames(images)
    options = {"precision": precision, "min_batch": 1, "max_batch": 8}
    program = triton.export(Frames(fold_batch_norm(network)), frames, tmp_path, **options)
    assert (program.dtype, program.precision) == ("uint8", precision)
    record = torch.load(tmp_path / program.file, weights_only=True)
    record["takes"] = Signature(1, 8, (3, 128, 128), "float16").to_text()  # the same weights and tiles
    torch.save(record, tmp_path / "floats.pt")
    run, floats = (
        triton.load(replace(program, file=name), tmp_path, device=CUDA) for name in (program.file, "floats.pt")
    )
    with torch.inference_mode():
        values = from_frames(frames.to(CUDA))
        for size in (8, 1, 3):
            output = run(frames[:size].to(CUDA))
            assert torch.equal(output, to_frames(floats(values[:size].half())))
        assert psnr_db(from_frames(run(frames.to(CUDA)).cpu()), network(from_frames(frames))).min() > least


def test_whichever_tiles_were_fastest_the_bits_are_the_same_each_time(images):
    """Also those whose sums are shared among programs, in which the last to come adds them up."""
    from p2p.deploy.kernels.unet import UNetKernels

    weights = weights_of(fold_batch_norm(view("running")), dtype=torch.float16).to(CUDA)
    kernels = UNetKernels(weights, batch=8, height=128, width=128, device=CUDA)
    likely = [candidates(*shape) for shape in kernels.products]
    assert any(tile.splits > 1 for tiles in likely for tile in tiles)
    for choice in (lambda tile: tile.splits, lambda tile: -tile.splits, lambda tile: tile.rows * tile.columns):
        kernels.tune([max(tiles, key=choice) for tiles in likely])
        inputs_NCHW = images.to(CUDA, torch.float16)
        expected = kernels(inputs_NCHW).clone()
        differing = torch.zeros((), dtype=torch.int64, device=CUDA)
        for _ in range(300):
            differing += (kernels(inputs_NCHW) != expected).any()
        assert not differing


def test_a_fresh_process_runs_it_without_model_code(images, tmp_path):
    network = view("running")
    program = triton.export(fold_batch_norm(network), images, tmp_path, min_batch=4, max_batch=4)
    torch.save(images[:4].half(), tmp_path / "inputs.pt")
    arguments = [json.dumps(asdict(program)), tmp_path, tmp_path / "inputs.pt", tmp_path / "outputs.pt"]
    command = [sys.executable, "-c", FRESH, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
    with torch.inference_mode():
        assert psnr_db(torch.load(tmp_path / "outputs.pt"), network(images[:4])).min() > 55
