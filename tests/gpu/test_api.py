"""`p2p.load` on a GPU: the bits of infer.py's files, tensors that stay there, threads with streams of their own."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import p2p
from p2p.codecs.fast import Fast
from p2p.data.pairs import find_inputs
from p2p.deploy.backends import eager
from p2p.pipelines import sequential
from tests.api.conftest import trained
from tests.conftest import picture
from tests.pipelines.conftest import stages_for

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda:0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, artifact):
    folder = tmp_path_factory.mktemp("api") / "export"
    artifact(folder, eager, side=64, width=16)
    return folder


@pytest.fixture(scope="module")
def translate(folder):
    translate = p2p.load(folder)
    assert translate.device == CUDA and translate.precision == "float16"
    return translate


@pytest.mark.parametrize("batch_size", [1, 4])
def test_paths_give_the_bits_of_the_files_of_infer(translate, tmp_path, batch_size):
    """By one engine, since another could choose other kernels of cuDNN, which round otherwise."""
    (tmp_path / "in").mkdir()
    for seed in range(10):
        picture(60 + seed, 64, seed=seed).save(tmp_path / f"in/{seed}.png")
    stages = stages_for(translate.network, tmp_path / "out", codec=Fast(), image_size=64)
    pairs = find_inputs(str(tmp_path / "in"))
    sequential.run(pairs, stages, batch_size=batch_size)
    found = translate([pair.input.path for pair in pairs], batch_size=batch_size)
    for pair, image in zip(pairs, found, strict=True):
        with Image.open(tmp_path / f"out/{pair.name}.png") as expected:
            assert image.tobytes() == expected.tobytes()


def test_tensors_stay_on_their_device(translate):
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    expected = translate(images)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = translate(images.to("cuda", dtype))
        assert (found.device, found.dtype, found.shape) == (CUDA, dtype, images.shape)
        assert (found.cpu().float() - expected).abs().max() < 0.05
    assert expected.device.type == "cpu" and translate(images.cuda(), restore_size=True).is_cuda
    frames = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(translate(frames.cuda()).cpu(), translate(frames))
    assert translate(torch.rand(3, 50, 70, device="cuda"), restore_size=True).shape == (3, 50, 70)
    layer = torch.nn.Conv2d(3, 1, 3).cuda()
    layer(translate(images.cuda())).sum().backward()
    assert layer.weight.grad is not None


def test_threads_with_streams_of_their_own(translate):
    frames = [np.asarray(picture(64, 64, seed=seed)) for seed in range(8)]
    expected = [translate(frame) for frame in frames]

    def work(index):
        with torch.cuda.stream(torch.cuda.Stream()):
            return [translate(frames[index]) for _ in range(50)]

    with ThreadPoolExecutor(8) as pool:
        for each, found in zip(expected, pool.map(work, range(8)), strict=True):
            assert all((image == each).all() for image in found)


def test_weights_on_a_gpu_and_on_a_cpu(tmp_path):
    trained(tmp_path / "run", names=["last"])
    torch.backends.cudnn.deterministic = False
    frame = np.asarray(picture(32, 32))
    on_gpu, on_cpu = p2p.load(tmp_path / "run"), p2p.load(tmp_path / "run", device="cpu")
    assert on_gpu.device == CUDA and np.abs(on_gpu(frame).astype(int) - on_cpu(frame)).max() <= 2
    assert not torch.backends.cudnn.deterministic


def test_another_gpu_than_the_current_one(folder):
    if torch.cuda.device_count() < 2:
        with pytest.raises(ValueError, match=r"^device=cuda:1 asks for cuda:1, and this machine has 1 GPU"):
            p2p.load(folder, device="cuda:1")
        return
    translate = p2p.load(folder, device="cuda:1")
    assert torch.cuda.current_device() == 0 and translate.device == torch.device("cuda:1")
    images = torch.rand(2, 3, 64, 64, device="cuda:0") * 2 - 1
    assert translate(images).device == CUDA and torch.cuda.current_device() == 0
    assert (translate(images) - p2p.load(folder, device="cuda:0")(images)).abs().max() < 0.02


def test_the_shipped_model_draws_here_what_it_draws_on_a_cpu():
    pytest.importorskip("safetensors")  # this machine's packages are not the project's own
    drawing = np.asarray(picture(256, 256))
    here, there = (p2p.load("emoji", device=device)(drawing).astype(int) for device in ("cuda", "cpu"))
    assert np.abs(here - there).mean() < 0.5
