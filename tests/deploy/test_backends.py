"""Every backend that runs on a CPU, against the module that it was made of."""

import copy
import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from torch import nn

from p2p.batch import from_frames, to_frames
from p2p.deploy import rewrite
from p2p.deploy.backends import aot_inductor, eager, exported_program, onnx
from p2p.deploy.manifest import Program, program_of
from p2p.deploy.signature import Signature
from p2p.deploy.sizes import Sizes
from p2p.models.init import initialize
from p2p.models.local_enhancer import LocalEnhancer
from p2p.models.unet import UNet
from tests.conftest import ROOT

CPU = torch.device("cpu")
# Without the packages of the extra `onnx` there is nothing of it to run; that a sentence says so is tested below.
RUNNABLE = [exported_program, eager, aot_inductor, *([onnx] if onnx.unavailable() is None else [])]
FRESH = """
import importlib, json, pathlib, sys, torch
from p2p.deploy.manifest import Program, program_of
record, folder, inputs, outputs = sys.argv[1:]
made = Program(**json.loads(record))
backend = importlib.import_module(f"p2p.deploy.backends.{made.backend}")
program = backend.load(made, pathlib.Path(folder), device=torch.device("cpu"))
torch.save(program(torch.load(inputs)), outputs)
assert not [module for module in sys.modules if module.startswith(("p2p.models", "p2p.training", "p2p.interop"))]
"""


def by_name(backend):
    return backend.__name__.rpartition(".")[2]


@pytest.fixture(autouse=True)
def a_machine_without_a_gpu_on_which_eager_may_export(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(eager, "unavailable", lambda: None)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    network = UNet(image_size=16, depth=3, width=4, norm="instance", dropout=0.0)
    initialize(network, gain=0.3)
    return network.eval()


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(5, 3, 16, 32) * 2 - 1


SIZES = {"static": (3, 3), "dynamic": (1, 4)}
CASES = [  # Inductor compiles for half a minute, however small the network is
    pytest.param(backend, *sizes, id=f"{by_name(backend)}-{name}", marks=[pytest.mark.soak] * (backend is aot_inductor))
    for backend in RUNNABLE
    for name, sizes in SIZES.items()
]


@pytest.mark.parametrize(("backend", "min_batch", "max_batch"), CASES)
def test_a_program_is_the_module(backend, min_batch, max_batch, generator, images, tmp_path, capfd):
    expected, before = generator(images).detach(), copy.deepcopy(generator.state_dict())
    folder = tmp_path / "export"
    folder.mkdir()
    program = backend.export(generator, images, folder, min_batch=min_batch, max_batch=max_batch)
    assert capfd.readouterr() == ("", "")
    torch.testing.assert_close(generator.state_dict(), before, rtol=0, atol=0)
    assert [path.name for path in folder.iterdir()] == [program.file]
    assert (program.backend, program.min_batch, program.max_batch) == (by_name(backend), min_batch, max_batch)
    assert program.gpu is None
    if backend is eager:  # fp16 unless told otherwise
        assert program.dtype == "float16"
        program = backend.export(generator, images, folder, precision="fp32", min_batch=min_batch, max_batch=max_batch)
    assert program.dtype == "float32"
    run = backend.load(program, folder, device=CPU)
    for size in range(min_batch, max_batch + 1):
        output = run(images[:size])
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected[:size], rtol=0, atol=1e-5)
    with pytest.raises((ValueError, AssertionError, RuntimeError)):
        run(images[:5])
    if min_batch == max_batch:
        with pytest.raises((ValueError, AssertionError, RuntimeError)):
            run(images[:2])
        torch.save(images[:3], tmp_path / "inputs.pt")
        arguments = [json.dumps(asdict(program)), folder, tmp_path / "inputs.pt", tmp_path / "outputs.pt"]
        subprocess.run([sys.executable, "-c", FRESH, *map(str, arguments)], cwd=ROOT, check=True)
        torch.testing.assert_close(torch.load(tmp_path / "outputs.pt"), expected[:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", [backend for backend in RUNNABLE if backend is not aot_inductor], ids=by_name)
def test_the_generator_of_several_scales(backend, tmp_path):
    """It pools, mirrors at borders and adds, which a U-Net does not."""
    torch.manual_seed(0)
    network = LocalEnhancer(image_size=16, width=4, downsamplings=1, blocks=1, local_blocks=1).eval()
    initialize(network, gain=0.3)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    program = backend.export(network, images, tmp_path, precision="fp32")
    output = backend.load(program, tmp_path, device=CPU)(images)
    torch.testing.assert_close(output, network(images).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", [backend for backend in RUNNABLE if backend is not aot_inductor], ids=by_name)
def test_half_precision_and_any_batch(backend, generator, images, tmp_path):
    program = backend.export(generator, images, tmp_path, precision="fp16")
    assert (program.dtype, program.min_batch, program.max_batch) == ("float16", 1, None)
    assert next(generator.parameters()).dtype == torch.float32
    run = backend.load(program, tmp_path, device=CPU)
    for size in (1, 2, 5):
        output = run(images[:size].half())
        assert output.dtype == torch.float16
        # 10 bits of mantissa, through six layers of values around 1
        torch.testing.assert_close(output.float(), generator(images[:size]).detach(), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("backend", "precision"),
    # Not AOT Inductor, which compiles exported_program's graph for ten seconds.
    [*((backend, "fp32") for backend in RUNNABLE if backend is not aot_inductor), (exported_program, "fp16")],
    ids=lambda value: value if isinstance(value, str) else by_name(value),
)
def test_frames_are_converted_inside_of_the_program(backend, precision, tmp_path):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1)]
    network = nn.Sequential(*layers, nn.Tanh()).eval()
    frames = torch.randint(0, 256, (5, 32, 64, 3), dtype=torch.uint8)
    options = {"precision": precision, "min_batch": 1, "max_batch": 4, "rewrites": ()}
    program = backend.export(rewrite.Frames(network), frames, tmp_path, **options)
    assert (program.dtype, program.precision) == ("uint8", precision)
    run = backend.load(program, tmp_path, device=CPU)
    network = network.half() if precision == "fp16" else network
    for size in (1, 4):
        output = run(frames[:size])
        expected = to_frames(network(from_frames(frames[:size]).to(next(network.parameters()).dtype)))
        assert (output.dtype, output.shape, output.is_contiguous()) == (torch.uint8, (size, 32, 64, 1), True)
        if backend in (exported_program, eager):
            assert torch.equal(output, expected)
        else:  # other kernels, whose last bits decide a value between two levels
            difference = (output.int() - expected.int()).abs()
            assert difference.max() <= 1 and difference.float().mean() < 1e-3
    for wrong in (frames, from_frames(frames[:2]), frames[:2].permute(0, 3, 1, 2)):
        with pytest.raises((ValueError, AssertionError, RuntimeError)):
            run(wrong)


@pytest.mark.parametrize("backend", RUNNABLE, ids=by_name)
@pytest.mark.parametrize(("min_batch", "max_batch"), [(0, 4), (5, 4)])
def test_batches_that_contradict_each_other(backend, min_batch, max_batch, generator, images, tmp_path):
    with pytest.raises(ValueError, match=rf"backend.min_batch={min_batch} and backend.max_batch={max_batch} do not"):
        backend.export(generator, images, tmp_path, min_batch=min_batch, max_batch=max_batch)
    assert not list(tmp_path.iterdir())


def test_a_generator_that_cannot_be_built_gets_a_sentence(images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match=r"cannot build .* torch.float32 \(division by zero\): choose another"):
        aot_inductor.export(nn.Conv2d(3, 3, 1).eval(), images, tmp_path)


def test_what_is_missing_is_named(generator, images, tmp_path, monkeypatch):
    monkeypatch.undo()  # eager as it is
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else name)
    reasons = {
        eager: "there is no CUDA GPU",
        aot_inductor: r"there is no C\+\+ compiler no-such-compiler",
        onnx: r"onnx and onnxscript and onnxruntime cannot be imported \(pip install onnx onnxscript onnxruntime\)",
    }
    for backend, reason in reasons.items():
        with pytest.raises(ValueError, match=f"backend={by_name(backend)} cannot be used, because {reason}"):
            backend.export(generator, images, tmp_path)
    with pytest.raises(ValueError, match=r"x.onnx needs the package onnxruntime, which is not installed: pip install"):
        onnx.load(Program("onnx", "x.onnx", "float32", None, {}), tmp_path, device=CPU)


def test_packages_for_something_else_are_refused(tmp_path, monkeypatch):
    """Read from the package before anything of it is loaded; here, in place of one of another machine."""
    facts = Signature(1, None, (3, 32, 32), "float32").to_text() | {"device": "cuda", "cpu": "none"}
    package = Program("aot_inductor", "x.pt2", "float32", None, {})
    reader = torch._C._aoti.AOTIModelPackageLoader
    with pytest.raises(ValueError, match=r"x.pt2 is not a package of AOT Inductor, or is damaged: export again"):
        (tmp_path / "x.pt2").write_bytes(b"no package")
        aot_inductor.load(package, tmp_path, device=CPU)
    monkeypatch.setattr(reader, "load_metadata_from_package", lambda *_: facts)
    with pytest.raises(ValueError, match=r"x.pt2 was compiled for cuda, not for cpu: export here"):
        aot_inductor.load(package, tmp_path, device=CPU)
    facts["device"] = "cpu"
    with pytest.raises(ValueError, match=r"x.pt2 was compiled for CPUs with none, which this one lacks: export"):
        aot_inductor.load(package, tmp_path, device=CPU)


@pytest.mark.parametrize("max_batch", [4, None])
def test_a_signature_survives_being_text(max_batch):
    signature = Signature(2, max_batch, (3, 32, 64), "float16")
    assert Signature.from_text(signature.to_text() | {"other": "x"}) == signature
    signature.check(torch.zeros(4, 3, 32, 64).half())
    wrong = [torch.zeros(1, 3, 32, 64).half(), torch.zeros(2, 3, 64, 32).half(), torch.zeros(2, 3, 32, 64)]
    for images in [*wrong, *([torch.zeros(5, 3, 32, 64).half()] if max_batch else [])]:
        with pytest.raises(
            ValueError, match=rf"takes batches of 2 to {max_batch or 'any'} images of 3x32x64 in float16"
        ):
            signature.check(images)


def test_the_size_that_a_program_takes():
    assert Signature(1, None, (3, 32, 64), "float16").size == Signature(1, None, (32, 64, 3), "uint8").size == (32, 64)


@pytest.mark.parametrize("frames", [False, True], ids=["floats", "frames"])
@pytest.mark.parametrize("backend", [each for each in RUNNABLE if each not in (eager, aot_inductor)], ids=by_name)
def test_a_program_of_any_size(backend, frames, generator, images, tmp_path):
    """From a side of one stride to the largest, neither of which it was traced at; all else is refused.

    Not of aot_inductor, which passed this once and compiles for a minute, nor of eager, whose file is the same.
    """
    sizes = Sizes([8, 8], [16, 32], [48, 64], 8)
    network, example = (rewrite.Frames(generator), to_frames(images)) if frames else (generator, images)
    program = backend.export(network, example, tmp_path, precision="fp32", min_batch=1, max_batch=2, sizes=sizes)
    assert program.sizes == sizes
    assert program_of(json.loads(json.dumps(asdict(program)))) == program
    run = backend.load(program, tmp_path, device=CPU)
    for count, height, width in [(1, 8, 8), (2, 48, 64), (1, 16, 8), (2, 24, 40)]:
        batch = torch.rand(count, 3, height, width) * 2 - 1
        if frames:
            batch = to_frames(batch)
            assert (run(batch).int() - network(batch).int()).abs().max() <= 1
        else:
            torch.testing.assert_close(run(batch), generator(batch), rtol=0, atol=1e-5)
    for height, width in [(12, 16), (56, 16), (16, 72)]:
        shape = (1, height, width, 3) if frames else (1, 3, height, width)
        with pytest.raises(ValueError, match="or heights and widths of 8x8 to 48x64 in steps of 8"):
            run(torch.zeros(shape, dtype=batch.dtype))
