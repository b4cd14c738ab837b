from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from p2p.batch import from_frames, to_frames
from p2p.deploy.backends import aot_inductor, eager, exported_program, onnx
from p2p.deploy.compatible import check_gpu, check_versions, minor
from p2p.deploy.engine import Engine, load_program
from p2p.deploy.manifest import Manifest, Program, versions
from p2p.system.gpu_faults import TooSmall

CPU = torch.device("cpu")
PATH = Path("runs/x/export/generator.pt2")
H100 = {"gpu": "NVIDIA H100 80GB HBM3", "architecture": "9.0", "driver": "580.82.07"}


def program(**changes):
    return replace(Program("exported_program", "generator.pt2", "float32", 8, versions()), **changes)


def engine(function, **changes):
    shape = [3, 2, 2]
    facts = {"program_sha256": "", "input_shape": shape, "output_shape": shape, "norm_stats": "instance"}
    facts |= {
        "direction": "AtoB",
        "preprocess": "none",
        "multiple": None,
        "image_size": 2,
        "checkpoint": "",
        "checkpoint_sha256": "",
    }
    return Engine(manifest=Manifest(program=program(**changes), psnr_db={}, **facts), program=function, device=CPU)


def test_a_small_batch_is_filled_up_with_its_last_image_and_the_output_cut():
    seen = []

    def double(input_NCHW):
        seen.append(input_NCHW.clone())
        return input_NCHW * 2

    fixed = engine(double, min_batch=4, max_batch=4)
    images = torch.arange(4 * 12.0).reshape(4, 3, 2, 2)
    for count in (1, 3, 4):
        assert torch.equal(fixed(images[:count]), images[:count] * 2)
    assert [len(batch) for batch in seen] == [4, 4, 4]
    assert torch.equal(seen[1], images[[0, 1, 2, 2]])
    assert torch.equal(seen[2], images)
    free = engine(double, min_batch=1)
    assert len(free(images[:3])) == len(seen[3]) == 3


def test_either_kind_of_program_takes_frames_and_floats():
    """Both compute the negative; 1.7 levels more than a level is 2 more where only whole levels are taken."""
    seen = []

    def frames_in(frames_NHWC):
        seen.append(tuple(frames_NHWC.shape))
        return 255 - frames_NHWC

    frames = torch.arange(3 * 12, dtype=torch.uint8).reshape(3, 2, 2, 3)
    whole = engine(frames_in, dtype="uint8", precision="fp16", min_batch=4)
    half = engine(torch.neg, dtype="float16", min_batch=4)
    for each in (whole, half):
        assert torch.equal(each.frames(frames), 255 - frames)
        assert torch.equal(to_frames(each(from_frames(frames))), 255 - frames)
    assert seen == [(4, 2, 2, 3)] * 2
    assert (whole.takes_frames, half.takes_frames) == (True, False)
    deep = from_frames(frames) + 1.7 / 127.5
    assert torch.equal(whole(deep), from_frames(253 - frames))
    assert whole(deep).dtype == torch.float32 and half(deep).dtype == torch.float16


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"min_batch": 1}, r"takes 8 images at most: .* backend\.max_batch=9"),
        ({"min_batch": 8}, r"backend\.min_batch=9 backend\.max_batch=9"),
        ({"min_batch": 8, "considered": []}, r"export again with batch_size=9"),
    ],
)
def test_a_batch_too_large_says_how_to_export(changes, again):
    with pytest.raises(ValueError, match=rf"batch_size=9 does not fit .* {again}$"):
        engine(None, **changes).check_batch_size(9)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_of_nothing(batch_size):
    with pytest.raises(ValueError, match=rf"^batch_size={batch_size} is too small: use 1 or more$"):
        engine(None).check_batch_size(batch_size)


def test_a_batch_that_will_be_padded_is_said(caplog):
    engine(None, min_batch=8).check_batch_size(8)
    engine(None, min_batch=1).check_batch_size(1)
    assert caplog.text == ""
    engine(None, min_batch=8).check_batch_size(3)
    assert "was built for batches of 8, and smaller ones take as long: use batch_size=8" in caplog.text


def test_gpus(caplog):
    made = program(**H100)
    check_gpu(program(), PATH, here={})  # for any device
    check_gpu(program(), PATH, here=H100)
    check_gpu(made, PATH, here=H100 | {"driver": "590.10"})
    assert caplog.text == ""
    with pytest.raises(ValueError, match=r"runs on a GPU \(NVIDIA H100 80GB HBM3\), but device=cpu: export"):
        check_gpu(made, PATH, here={})
    ada = {"gpu": "NVIDIA L4", "architecture": "8.9", "driver": "580.82.07"}
    with pytest.raises(
        ValueError,
        match=r"was made on NVIDIA H100 80GB HBM3 \(compute capability 9\.0\) and cannot run on NVIDIA L4"
        r" \(compute capability 8\.9\): export again on this machine$",
    ):
        check_gpu(made, PATH, here=ada)
    check_gpu(made, PATH, here=H100 | {"gpu": "NVIDIA H200"})
    assert "was tuned on NVIDIA H100 80GB HBM3, and this is NVIDIA H200: export again" in caplog.text


def backend(**constants):
    module = ModuleType("p2p.deploy.backends.other")
    for name, value in constants.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("rule", "made", "here", "refused"),
    [
        ("minor", "2.11.0+cu130", "2.11.3", False),
        ("minor", "2.11.0", "2.9.0", True),
        ("minor", "2.9.0", "2.11.0", True),
        ("minor", "2.11.0", "3.11.0", True),
        ("exact", "2.11.0", "2.11.0", False),
        ("exact", "2.11.0", "2.11.3", True),
        ("not older", "2.9.1", "2.11.0", False),  # 9 is less than 11, though not as text
        ("not older", "2.11.0", "2.9.1", True),
        ("not older", "2.11.5", "2.11.0", False),
    ],
)
def test_torchs_version(rule, made, here, refused, monkeypatch):
    monkeypatch.setattr(torch, "__version__", here)
    own = {"minor": [aot_inductor], "not older": [exported_program, eager], "exact": []}[rule]
    for module in [backend(VERSIONS={"torch": rule}), *own]:
        if refused:
            with pytest.raises(ValueError, match=rf"made with torch {made}, .* here, {here}: export again"):
                check_versions(program(versions={"torch": made}), PATH, backend=module)
        else:
            check_versions(program(versions={"torch": made}), PATH, backend=module)
    check_versions(program(versions={"torch": made}), PATH, backend=onnx)  # reads files of any


def test_packages_of_which_the_version_matters(monkeypatch):
    rules = {"torch": "minor", "torch-tensorrt": "exact", "tensorrt": "exact", "torch-tensorrt-rtx": "exact"}
    module = backend(VERSIONS=rules)
    made = program(versions={"torch": torch.__version__, "torch-tensorrt": "2.14.0", "tensorrt": "10.13.0.35"})
    here = made.versions | {"torch-tensorrt-rtx": "2.14.0"}  # of the other flavour, which it was not made with
    monkeypatch.setattr("p2p.deploy.compatible.versions", lambda *names: here)
    check_versions(made, PATH, backend=module)
    here["tensorrt"] = "10.13.0.36"
    with pytest.raises(ValueError, match=r"made with tensorrt 10\.13\.0\.35, which .* here, 10\.13\.0\.36: export"):
        check_versions(made, PATH, backend=module)
    monkeypatch.setattr("p2p.deploy.compatible.versions", versions)
    with pytest.raises(ValueError, match=r"made with torch-tensorrt 2\.14\.0, which does not fit .* here, none: exp"):
        check_versions(made, PATH, backend=module)


def test_minor():
    assert minor("2.14.1+cu130") == (2, 14)
    assert minor("2.9.0a0+git12") == (2, 9)


def test_a_program_that_does_not_load_is_refused_in_one_sentence():
    def load(program, folder, *, device):
        raise RuntimeError("deserialization failed\nat engine.cpp:12")

    broken = backend(load=load)
    match = r"generator\.pt2 cannot be loaded, because deserialization failed: export again on this machine$"
    with pytest.raises(ValueError, match=match):
        load_program(broken, program(), PATH.parent, device=CPU)


def test_a_program_that_the_gpus_memory_does_not_hold_is_not_called_damaged():
    def load(program, folder, *, device):
        raise RuntimeError("Error Code 2: OutOfMemory (Requested size was 4711 bytes.)")

    with pytest.raises(
        TooSmall, match=r"generator\.pt2: end other programs that use this GPU, or export again with a sm"
    ):
        load_program(backend(load=load), program(), PATH.parent, device=CPU)
