import json
import platform

import pytest
import torch

from p2p.deploy.manifest import Manifest, Program, driver_version, gpu_facts, versions

OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs-builder)
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
CLOSED = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 24 22:40:17 UTC 2024
GCC version:  gcc version 11.4.0
"""


@pytest.mark.parametrize(("text", "version"), [(OPEN, "580.82.07"), (CLOSED, "535.161.08")])
def test_the_drivers_version_is_read_from_its_kernel_module(text, version, tmp_path):
    """Both texts as the two kinds of module print them."""
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == version


def test_a_hidden_driver_is_named_by_its_cuda_version(tmp_path, monkeypatch):
    class Library:
        def __init__(self, name):
            assert name == "libcuda.so.1"

        def cuDriverGetVersion(self, pointer):
            pointer._obj.value = 12040  # 1000 * major + 10 * minor, by CUDA's manual

    monkeypatch.setattr("p2p.deploy.manifest.ctypes.CDLL", Library)
    assert driver_version(tmp_path / "hidden") == "CUDA 12.4"


def test_versions_are_found_however_a_distribution_spells_its_name(tmp_path, monkeypatch):
    for name in ("tensorrt_rtx_cu13", "Some.Thing"):
        folder = tmp_path / f"{name}-1.4.0.76.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.4.0.76\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = versions("tensorrt-rtx-cu13", "some-thing", "not-installed", "torch")
    assert found == {
        "tensorrt-rtx-cu13": "1.4.0.76",
        "some-thing": "1.4.0.76",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def test_gpu_facts(monkeypatch):
    assert gpu_facts(torch.device("cpu")) == {}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (12, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA RTX 5090")
    monkeypatch.setattr("p2p.deploy.manifest.driver_version", lambda path: "580.82.07")
    facts = {"gpu": "NVIDIA RTX 5090", "architecture": "12.0", "driver": "580.82.07"}
    assert gpu_facts(torch.device("cuda")) == facts


def test_a_manifest_survives_the_disk(tmp_path):
    rows = [{"backend": "onnx", "batch_ms": None, "verdict": "there is no onnx"}]
    program = Program("eager", "generator.pt2", "float16", 8, {"torch": "2.14.1"}, min_batch=8, considered=rows)
    figures = {"mean": 50.5, "worst": 41.25, "worst_image": "deep/a", "images": 2}
    manifest = Manifest(
        program=program,
        program_sha256="0" * 64,
        input_shape=[3, 32, 64],
        output_shape=[1, 32, 64],
        norm_stats="running",
        direction="BtoA",
        preprocess="none",
        multiple=4,
        image_size=64,
        checkpoint="last.ckpt",
        checkpoint_sha256="1" * 64,
        psnr_db=figures,
    )
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    record = json.loads((tmp_path / "manifest.json").read_text())
    assert record["program"]["min_batch"] == 8
    for key in ("min_batch", "architecture", "driver", "considered"):  # as p2p 0.1 wrote it
        del record["program"][key]
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    assert Manifest.load(tmp_path).program.min_batch == 1
    record["program"]["colour"] = "red"
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged or of another version of p2p .*: export"):
        Manifest.load(tmp_path)
