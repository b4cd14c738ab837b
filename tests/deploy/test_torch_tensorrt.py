"""What of the backend can be tested without its libraries: how it speaks to TensorRT's runtime, here a stand-in."""

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from p2p.batch import from_frames, to_frames
from p2p.deploy import tensorrt_runtime
from p2p.deploy.backends import torch_tensorrt
from p2p.deploy.engine import load_program
from p2p.deploy.manifest import Program
from p2p.system.gpu_faults import TooSmall
from tests.deploy import fake_tensorrt

CPU = torch.device("cpu")
MADE = Program("torch_tensorrt", "generator.engine", "float16", 4, {"torch-tensorrt-rtx": "2.11.0"})
STREAM = 7


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=STREAM))
    monkeypatch.setattr(torch_tensorrt, "Captured", lambda run, *, device, dtype: run)
    tensorrt_runtime.runtime.cache_clear()
    yield
    tensorrt_runtime.runtime.cache_clear()


@pytest.fixture
def rtx(monkeypatch):
    return fake_tensorrt.install(monkeypatch, "tensorrt_rtx")


def loaded(folder, program=MADE, engine=b"1 4"):
    (folder / program.file).write_bytes(engine)
    return load_program(torch_tensorrt, program, folder, device=CPU)


def kernels_in(folder):
    """The file is a SHA-256 of what TensorRT-RTX gave, and that."""
    contents = (folder / "generator.kernels").read_bytes()
    assert contents[:32] == hashlib.sha256(contents[32:]).digest()
    return contents[32:]


def images(count):
    torch.manual_seed(count)
    return (torch.rand(count, 3, 2, 2) * 2 - 1).half()


@pytest.mark.parametrize("engine", [b"1 4", b"3 3"], ids=["dynamic", "static"])
def test_an_engine_runs_on_the_current_stream_and_refuses_what_it_does_not_take(engine, rtx, tmp_path):
    run = loaded(tmp_path, engine=engine)
    for layout in (torch.contiguous_format, torch.channels_last):
        batch = images(3).to(memory_format=layout)
        output = run(batch)
        assert torch.equal(output, -batch) and output.is_contiguous()
    assert rtx.streams == [STREAM, STREAM]
    for wrong in (images(5), images(3).float(), torch.zeros(3, 2, 2, 3).half()):
        with pytest.raises(ValueError, match="the program takes batches of"):
            run(wrong)
    assert len(rtx.streams) == 2


def test_kernels_are_compiled_at_once_and_kept_for_the_next_process(rtx, tmp_path):
    run = loaded(tmp_path)
    for count in (2, 4, 2):
        run(images(count))
    assert (rtx.compiled, rtx.strategy) == ([2, 4], "eager")
    assert kernels_in(tmp_path) == b"kernels 2 4"
    before = (tmp_path / "generator.kernels").stat().st_mtime_ns
    run = loaded(tmp_path)
    for count in (4, 2):
        assert torch.equal(run(images(count)), -images(count))
    assert rtx.compiled == [2, 4] and rtx.with_kernels == [[], [2, 4]]
    assert (tmp_path / "generator.kernels").stat().st_mtime_ns == before  # nothing new, hence not written again
    run(images(1))
    assert kernels_in(tmp_path) == b"kernels 1 2 4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generator.engine", "generator.kernels"]


FOREIGN = b"of another version"
KERNELS = {
    "empty": b"",
    "short": b"\0" * 10,
    "damaged": hashlib.sha256(b"kernels 2").digest() + b"kernels 3",
    "of another version": hashlib.sha256(FOREIGN).digest() + FOREIGN,
}


@pytest.mark.parametrize("contents", KERNELS.values(), ids=KERNELS)
def test_kernels_that_do_not_serve_are_replaced_and_their_error_is_forgotten(contents, rtx, tmp_path):
    (tmp_path / "generator.kernels").write_bytes(contents)
    loaded(tmp_path)(images(2))
    assert (rtx.compiled, rtx.with_kernels) == ([2], [[]])
    assert kernels_in(tmp_path) == b"kernels 2"
    assert tensorrt_runtime.runtime("tensorrt_rtx")[-1] == []


def test_kernels_that_cannot_be_read_or_written_cost_nothing_else(rtx, tmp_path):
    (tmp_path / "generator.kernels").mkdir()
    assert torch.equal(loaded(tmp_path)(images(2)), -images(2))
    assert rtx.compiled == [2]
    (tmp_path / "generator.kernels").rmdir()
    rtx.serialize_fails = True
    assert torch.equal(loaded(tmp_path)(images(2)), -images(2))
    assert [path.name for path in tmp_path.iterdir()] == ["generator.engine"]


def test_what_was_made_last_is_freed_first(rtx, tmp_path):
    run = loaded(tmp_path)
    run(images(2))
    assert rtx.freed == []
    del run
    assert rtx.freed == ["context", "config", "kernels", "engine"]


def test_tensorrt_itself_compiles_nothing_later(monkeypatch, tmp_path):
    seen = fake_tensorrt.install(monkeypatch, "tensorrt")
    run = loaded(tmp_path, replace(MADE, versions={"torch-tensorrt": "2.11"}))
    assert torch.equal(run(images(3)), -images(3))
    assert seen.with_kernels == [None] and not (tmp_path / "generator.kernels").exists()


def test_frames_are_converted_around_the_engine(rtx, tmp_path):
    run = loaded(tmp_path, replace(MADE, dtype="uint8", precision="fp16"))
    frames = torch.randint(0, 256, (2, 2, 2, 3), dtype=torch.uint8)
    assert torch.equal(run(frames), to_frames(-from_frames(frames).half()))


def test_why_an_engine_does_not_load_is_said_in_tensorrts_words(rtx, tmp_path):
    match = r"generator\.engine cannot be loaded, because Error Code 1: Serialization \(no magic tag\.\): export"
    with pytest.raises(ValueError, match=match):
        loaded(tmp_path, engine=b"damaged")
    rtx.no_context = "Error Code 2: OutOfMemory (Requested size was 4711 bytes.)"
    with pytest.raises(TooSmall, match=r"the GPU's memory does not hold .*generator\.engine: end other programs"):
        loaded(tmp_path)
    rtx.no_context = "another reason"
    with pytest.raises(ValueError, match="because another reason: export"):  # and not those from before
        loaded(tmp_path)


def test_what_is_missing_or_of_an_earlier_version_is_one_sentence(tmp_path, monkeypatch):
    for converter, name, package in (
        ("torch-tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx-cu13"),
        ("torch-tensorrt", "tensorrt", "tensorrt"),
        ("none that is known", "tensorrt", "tensorrt"),
    ):
        made = replace(MADE, versions={converter: "1"})
        with pytest.raises(ValueError, match=rf"generator\.engine needs the package {name}, .* pip install {package}$"):
            loaded(tmp_path, made)
    with pytest.raises(ValueError, match=r"generator\.pt2 is of an earlier version of p2p, .*: export again$"):
        loaded(tmp_path, replace(MADE, file="generator.pt2"))


def library(monkeypatch, convert):
    """Torch-TensorRT with that function, where TensorRT-RTX and a GPU seem to be."""
    fake = SimpleNamespace(
        Input=lambda **sizes: sizes,
        dynamo=SimpleNamespace(convert_exported_program_to_serialized_trt_engine=convert),
    )
    monkeypatch.setattr(torch_tensorrt, "_import", lambda: (fake, "tensorrt_rtx"))
    monkeypatch.setattr(torch_tensorrt, "unavailable", lambda: None)
    monkeypatch.setattr(torch_tensorrt, "trace", lambda *_, **__: "a graph")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch_tensorrt, "versions", lambda *_: {"torch-tensorrt-rtx": "2.11"})


def test_an_engine_is_written_as_it_is(rtx, tmp_path, monkeypatch):
    asked = []

    def convert(*arguments, **options):
        asked.append((arguments, options))
        return b"1 4"

    library(monkeypatch, convert)
    network = torch.nn.Conv2d(3, 3, 1).eval()
    made = torch_tensorrt.export(network, torch.zeros(2, 3, 2, 2), tmp_path, max_batch=4, tf32=True)
    assert (made.file, made.dtype, made.max_batch, made.gpu) == ("generator.engine", "float16", 4, "a GPU")
    assert (tmp_path / made.file).read_bytes() == b"1 4"
    sizes = {"min_shape": (1, 3, 2, 2), "opt_shape": (4, 3, 2, 2), "max_shape": (4, 3, 2, 2), "dtype": torch.float16}
    assert asked == [(("a graph", [sizes]), {"disable_tf32": False})]
    assert torch.equal(load_program(torch_tensorrt, made, tmp_path, device=CPU)(images(3)), -images(3))


def test_memory_that_ran_out_in_a_build_is_told_as_that(rtx, tmp_path, monkeypatch):
    """Torch-TensorRT 2.11 logs what went wrong, and then fails over a variable that it never set."""
    *_, errors = tensorrt_runtime.runtime("tensorrt_rtx")

    def convert(*_, **__):
        errors.append(reasons.pop())
        raise UnboundLocalError("interpreter_result")

    library(monkeypatch, convert)
    reasons = ["CUDA out of memory", "no kernels for this layer"]
    for kind, match in (
        (ValueError, "TensorRT cannot build this generator in torch.float16: choose"),
        (RuntimeError, "^CUDA out of memory$"),
    ):
        with pytest.raises(kind, match=match):
            torch_tensorrt.export(torch.nn.Conv2d(3, 3, 1).eval(), torch.zeros(2, 3, 2, 2), tmp_path)
    assert not list(tmp_path.iterdir())
