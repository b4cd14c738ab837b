"""Torch-TensorRT on a real GPU, by the same calls as export.py and infer.py."""

import shutil
import subprocess
import sys
from functools import partial
from importlib import metadata

import pytest
import torch

from p2p.batch import from_frames, to_frames
from p2p.codecs.pillow import Pillow
from p2p.data.pairs import find_pairs
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy import auto, tensorrt_runtime
from p2p.deploy.accuracy import psnr_db
from p2p.deploy.backends import torch_tensorrt
from p2p.deploy.backends.torch_tensorrt import RTX, RUNTIMES
from p2p.deploy.engine import load_engine, load_program
from p2p.deploy.export import export
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.lab import LabUNet
from p2p.models.unet import UNet
from p2p.pipelines import overlap, sequential
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock
from tests.conftest import ROOT

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")


def trained_like() -> UNet:
    """A network with the activations of a trained one: running averages that fit its weights."""
    torch.manual_seed(0)
    network = UNet(image_size=128, width=32)
    initialize(network, gain=0.05)
    network.train()
    for _ in range(50):
        network(torch.randn(4, 3, 128, 128))
    return network


@pytest.fixture(scope="module")
def pairs():
    return find_pairs(ROOT / "data/samples/val")


@pytest.fixture(scope="module")
def images(pairs):
    from p2p.data.dataset import PairDataset

    dataset = PairDataset(pairs, Torchvision(image_size=128), augment=False)
    return torch.cat([dataset[i].input_NCHW for i in range(len(dataset))])


@pytest.fixture(scope="module", params=["instance", "running"])
def exported(request, tmp_path_factory, images):
    folder = tmp_path_factory.mktemp(request.param) / "export"
    checkpoint = folder.parent / "last.ckpt"
    checkpoint.touch()
    facts = {"norm_stats": request.param, "direction": "AtoB", "checkpoint": checkpoint, "device": CUDA}
    manifest = export(trained_like(), images, folder, backend=partial(auto.export, max_batch=8), **facts)
    return folder, manifest


def test_auto_chooses_it_and_it_is_close_to_fp32(exported):
    _, manifest = exported
    assert manifest.program.backend == "torch_tensorrt"
    assert manifest.program.dtype == "float16"
    assert manifest.program.gpu == torch.cuda.get_device_name()
    [runtime] = set(RUNTIMES.values()).intersection(manifest.program.versions)  # whose version is compared at load
    assert manifest.program.versions[runtime] == metadata.version(runtime)
    assert manifest.psnr_db["worst"] > 40


def test_every_batch_size_gives_the_same_images(exported, images):
    folder, manifest = exported
    engine = load_engine(folder, device=CUDA)
    expected = inference_view(trained_like(), norm_stats=manifest.norm_stats)(images)
    for size in (1, 3, 8):
        outputs = torch.cat([engine(batch).cpu() for batch in images.split(size)])
        assert psnr_db(outputs, expected).min() > 40


def test_a_network_that_converts_colours(images, tmp_path):
    torch.manual_seed(0)
    network = LabUNet(image_size=128, width=32, dropout=0.0)
    initialize(network, gain=0.05)
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.touch()
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CUDA}
    backend = partial(torch_tensorrt.export, max_batch=4)
    manifest = export(network, images.mean(dim=1, keepdim=True), tmp_path / "export", backend=backend, **facts)
    assert manifest.output_shape == [3, 128, 128] and manifest.psnr_db["worst"] > 40


@pytest.mark.parametrize("exported", ["running"], indirect=True)
def test_tensorrt_alone_runs_the_engine(exported, images, tmp_path):
    """As another program would, by the names and shapes that the engine tells of itself."""
    folder, manifest = exported
    torch.save(images[:2].half(), tmp_path / "images.pt")
    library = "tensorrt_rtx" if RTX in manifest.program.versions else "tensorrt"
    script = f"""
import sys, torch, {library} as trt
sys.modules["p2p"] = sys.modules["torch_tensorrt"] = None  # importing them fails
runtime = trt.Runtime(trt.Logger())
engine = runtime.deserialize_cuda_engine(open({str(folder / "generator.engine")!r}, "rb").read())
context = engine.create_execution_context()
images = torch.load("images.pt").cuda()
outputs = torch.empty_like(images)
for name in map(engine.get_tensor_name, range(2)):
    if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
        context.set_input_shape(name, tuple(images.shape))
        context.set_tensor_address(name, images.data_ptr())
    else:
        context.set_tensor_address(name, outputs.data_ptr())
assert context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
torch.save(outputs.cpu(), "outputs.pt")
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    expected = load_engine(folder, device=CUDA)(images[:2]).cpu()
    assert psnr_db(torch.load(tmp_path / "outputs.pt"), expected).min() > 50


@pytest.mark.parametrize("exported", ["running"], indirect=True)
def test_a_fresh_process_needs_no_torch_tensorrt_and_starts_with_kept_kernels(exported, images, tmp_path):
    """Kept are those of TensorRT-RTX; TensorRT has all of its kernels in the engine."""
    folder, manifest = shutil.copytree(exported[0], tmp_path / "export"), exported[1]
    expected = load_engine(folder, device=CUDA)(images[:3]).cpu()  # keeps the kernels of this batch size
    torch.save(images[:3], tmp_path / "images.pt")
    script = """
import sys, torch
from pathlib import Path
from p2p.deploy.engine import load_engine
folder = Path(sys.argv[1])
engine = load_engine(folder / "export", device=torch.device("cuda"))
torch.save(engine(torch.load(folder / "images.pt")).cpu(), folder / "out.pt")
assert not {"torch_tensorrt", "lightning"}.intersection(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=True)
    assert psnr_db(torch.load(tmp_path / "out.pt"), expected).min() > 60
    if RTX in manifest.program.versions:
        contents = (folder / "generator.kernels").read_bytes()
        _, runtime, _ = tensorrt_runtime.runtime("tensorrt_rtx")
        engine = runtime.deserialize_cuda_engine((folder / "generator.engine").read_bytes())
        assert engine.create_runtime_config().create_runtime_cache().deserialize(contents[tensorrt_runtime.DIGEST :])


@pytest.mark.parametrize("exported", ["running"], indirect=True)
def test_kernels_that_are_damaged_are_replaced(exported, images, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "export")
    expected = load_engine(folder, device=CUDA)(images[:3]).cpu()
    if not (folder / "generator.kernels").exists():  # TensorRT has none
        return
    damaged = bytearray((folder / "generator.kernels").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (folder / "generator.kernels").write_bytes(damaged)
    assert psnr_db(load_engine(folder, device=CUDA)(images[:3]).cpu(), expected).min() > 60
    assert (folder / "generator.kernels").read_bytes() != damaged


@pytest.mark.parametrize("exported", ["running"], indirect=True)
def test_a_damaged_engine_is_one_sentence(exported, tmp_path):
    folder, manifest = exported
    whole = (folder / "generator.engine").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"x" * 1000, b""):
        (tmp_path / "generator.engine").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"generator\.engine cannot be loaded, because [^\n]+: export ag"):
            load_program(torch_tensorrt, manifest.program, tmp_path, device=CUDA)


def written_by_both_pipelines(folder, pairs, tmp_path):
    written = {}
    for name, run in (("sequential", sequential.run), ("overlap", partial(overlap.run, workers=2))):
        engine = load_engine(folder, device=CUDA)
        transform, output = Torchvision(image_size=128), tmp_path / name
        stages = Stages(engine=engine, transform=transform, codec=Pillow(), output=output, clock=Clock())
        run(pairs, stages, batch_size=6)  # 16 images: the last batch is not full
        written[name] = {path.name: path.read_bytes() for path in output.glob("*.png")}
    assert len(written["overlap"]) == 16
    return written["sequential"], written["overlap"]


def test_both_pipelines_write_the_same_bytes(exported, pairs, tmp_path):
    sequentially, overlapped = written_by_both_pipelines(exported[0], pairs, tmp_path)
    assert sequentially == overlapped


def test_a_program_of_frames(pairs, images, tmp_path):
    folder, checkpoint = tmp_path / "export", tmp_path / "last.ckpt"
    checkpoint.touch()
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CUDA}
    backend = partial(torch_tensorrt.export, max_batch=8)
    program = export(trained_like(), images, folder, backend=backend, frames=True, **facts).program  # above 40 dB
    assert (program.file, program.dtype, program.precision) == ("generator.engine", "uint8", "fp16")
    engine, frames = load_engine(folder, device=CUDA), to_frames(images[:3]).to(CUDA)
    inside = engine.frames(frames)
    assert inside.is_cuda and torch.equal(inside, to_frames(engine(from_frames(frames))))
    sequentially, overlapped = written_by_both_pipelines(folder, pairs, tmp_path)
    assert sequentially == overlapped


@pytest.mark.parametrize(("precision", "dtype", "least"), [("bf16", "bfloat16", 25), ("fp32", "float32", 50)])
def test_other_precisions(precision, dtype, least, images, tmp_path):
    """TensorRT-RTX 1.4 builds no transposed convolution in bf16; then a sentence says what to do."""
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.touch()
    backend = partial(torch_tensorrt.export, precision=precision, max_batch=4)
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CUDA}
    try:
        manifest = export(trained_like(), images, tmp_path / "export", backend=backend, min_psnr=least, **facts)
    except ValueError as error:
        assert precision == "bf16"
        assert "TensorRT cannot build this generator in torch.bfloat16: choose another" in str(error)
        assert not (tmp_path / "export").exists()
    else:
        assert manifest.program.dtype == dtype
