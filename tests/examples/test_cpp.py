"""examples/cpp, compiled here: needs cmake, a C++ compiler, and ONNXRUNTIME=folder of a release of ONNX Runtime."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from p2p.deploy.backends import onnx
from p2p.deploy.rewrite import Frames
from tests.conftest import ROOT, picture

pytestmark = pytest.mark.skipif(
    "ONNXRUNTIME" not in os.environ or shutil.which("cmake") is None or onnx.unavailable() is not None,
    reason="needs cmake, the extra onnx, and ONNXRUNTIME=folder of a release of ONNX Runtime",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled example."""
    build = tmp_path_factory.mktemp("build")
    options = [f"-DONNXRUNTIME={os.environ['ONNXRUNTIME']}", "-DCMAKE_CXX_FLAGS=-Werror"]
    subprocess.run(["cmake", "-S", ROOT / "examples" / "cpp", "-B", build, *options], check=True)
    subprocess.run(["cmake", "--build", build], check=True)
    return build / "translate"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with generator.onnx, which takes frames of 32x16 pixels, and the function that p2p loads of it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()).eval()
    folder = tmp_path_factory.mktemp("export")
    written = onnx.export(Frames(network), torch.zeros(2, 16, 32, 3, dtype=torch.uint8), folder)
    return folder, onnx.load(written, folder, device=torch.device("cpu"))


@pytest.mark.parametrize("count", [1, 3])
def test_it_gives_the_bytes_that_python_gives(tmp_path, program, exported, count):
    folder, run = exported
    pictures = [picture(32, 16, seed=seed) for seed in range(count)]
    words = []
    for index, image in enumerate(pictures):
        image.save(tmp_path / f"{index}.ppm")
        words += [tmp_path / f"out{index}.ppm", tmp_path / f"{index}.ppm"]
    subprocess.run([program, folder / "generator.onnx", *words], check=True)
    expected = run(torch.from_numpy(np.stack([np.array(image) for image in pictures]))).numpy()
    assert np.array_equal(np.stack([np.array(Image.open(path)) for path in words[::2]]), expected)


def test_a_mistake_is_one_sentence(tmp_path, program, exported):
    folder, _ = exported
    picture(32, 16).save(tmp_path / "a.png")
    for words, code, said in (
        ([], 2, "usage: translate"),
        ([tmp_path / "out.ppm", tmp_path / "a.png"], 1, "is not a binary PPM"),
        ([tmp_path / "out.ppm", tmp_path / "none.ppm"], 1, "cannot be opened"),
    ):
        done = subprocess.run([program, folder / "generator.onnx", *words], capture_output=True, text=True)
        assert done.returncode == code and said in done.stderr
    assert not (tmp_path / "out.ppm").exists()
