"""A GPU whose memory another process has: infer.py goes on with smaller batches, the others name a size that fits."""

import os

import numpy as np
import pytest
from PIL import Image

from p2p.deploy.backends import torch_tensorrt, triton
from tests.conftest import ROOT
from tests.gpu.gpu_processes import OVERLAP, another_process_holds_all_but, ended, infer, run, start, whole

pytestmark = pytest.mark.gpu

LITTLE = 2300 << 20  # bytes: for the libraries, the weights, and some of 192 images


def test_infer_goes_on_with_smaller_batches(large, tmp_path):
    many = "batch_size=192"
    with another_process_holds_all_but(LITTLE):
        for name in ("sequential", "overlap"):
            out = run(*infer(large / "in", large / "graph", tmp_path / name, f"+pipeline={name}", many))
            assert "the GPU's memory holds batches of " in out and "192 images written" in out
            assert out.count(": continuing with these") == 1
            assert whole(tmp_path / name) == 192
    run(*infer(large / "in", large / "graph", tmp_path / "alone", "+pipeline=overlap", many))
    for name in ("sequential", "overlap"):  # by cuDNN's kernels for other batches, which may round differently
        for path in (tmp_path / "alone").glob("*.png"):
            one, other = (np.asarray(Image.open(each), np.int16) for each in (path, tmp_path / name / path.name))
            assert np.abs(one - other).max() <= 2


@pytest.mark.parametrize("backend", [triton, torch_tensorrt])
def test_a_compiled_program(large, artifact, tmp_path, backend):
    """TensorRT takes the memory for its largest batch when it is loaded."""
    if reason := backend.unavailable():
        pytest.skip(reason)
    artifact(tmp_path / "program", backend, side=256, width=64, max_batch=192)
    with another_process_holds_all_but(LITTLE):
        many = ["+pipeline=overlap", "batch_size=192"]
        process = start(*infer(large / "in", tmp_path / "program", tmp_path / "out", *many))
        out = ended(process)
    assert "Traceback" not in out
    if process.returncode == 0:
        assert "continuing with these" in out and whole(tmp_path / "out") == 192
    else:
        assert "error: the GPU's memory" in out


@pytest.mark.parametrize("left", [40 << 20, 700 << 20], ids=["nothing", "next to nothing"])
def test_infer_where_not_one_image_fits(large, tmp_path, left):
    with another_process_holds_all_but(left):
        out = run(*infer(large / "in", large / "graph", tmp_path / "out", *OVERLAP), code=1)
    assert "error: the GPU's memory" in out and "end other programs" in out
    assert whole(tmp_path / "out") == 0


def test_train_names_a_batch_size_that_fits(tmp_path):
    name = f"name={os.path.relpath(tmp_path / 'run', ROOT / 'runs')}"
    with another_process_holds_all_but(4 << 30):
        out = run("train.py", name, "image_size=256", "batch_size=64", "epochs=1", code=1, seconds=240)
        assert "error: the GPU's memory does not hold batch_size=64" in out and " fits, as a trial showed" in out
        fits = int(out.rpartition("batch_size=")[2].split()[0])
        assert 1 <= fits < 64
        run("train.py", name, "image_size=256", f"batch_size={fits}", "epochs=1", seconds=240)


def test_export_names_a_batch_that_fits(trained):
    folder, name = trained
    both = ["backend.min_batch=65536", "backend.max_batch=65536"]
    with another_process_holds_all_but(4 << 30):
        out = run("export.py", name, "backend=triton", *both, "cache_dir=null", "min_psnr=0", code=1, seconds=240)
    assert "error: the GPU's memory does not hold backend.max_batch=65536" in out
    assert " fits, as a trial showed" in out
    assert not list(folder.glob("export*"))
