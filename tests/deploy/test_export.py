import hashlib
import json
import re
import subprocess
import sys
from functools import partial

import pytest
import torch

from p2p.batch import from_frames, to_frames
from p2p.deploy import auto, fastest
from p2p.deploy.accuracy import check, psnr_db, reference_outputs, summary
from p2p.deploy.backends import exported_program, torch_tensorrt
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export, load_weights
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.system.digest import sha256

CPU = torch.device("cpu")


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(3, 3, 32, 64) * 2 - 1


def network():
    torch.manual_seed(0)
    unet = UNet(image_size=32, width=4)
    initialize(unet, gain=0.2)
    return unet.train()


def run_export(folder, images, *, backend=exported_program.export, **options):
    checkpoint = folder.parent / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    options = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CPU} | options
    return export(network(), images, folder, backend=backend, **options)


@pytest.mark.slow
def test_a_fresh_process_runs_the_program_without_this_project(tmp_path, images):
    folder = tmp_path / "export"
    run_export(folder, images)
    torch.save(images, tmp_path / "images.pt")
    script = """
import sys, torch
sys.modules["p2p"] = None  # importing it fails
program = torch.export.load("export/generator.pt2").module()
torch.save([program(images) for images in torch.load("images.pt").split([1, 2])], "outputs.pt")
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    # At batch 1, BatchNorm in training mode is what the paper tests with; dropout off.
    expected = network()
    for module in expected.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    expected = torch.cat([expected(image[None]) for image in images]).detach()
    torch.testing.assert_close(torch.cat(torch.load(tmp_path / "outputs.pt")), expected, rtol=0, atol=1e-5)


def test_the_manifest_says_what_was_exported(tmp_path, images):
    folder = tmp_path / "export"
    run_export(folder, images, backend=partial(exported_program.export, max_batch=4), image_size=48)
    record = json.loads((folder / "manifest.json").read_text())
    assert record["program"]["backend"] == "exported_program"
    assert record["program"]["max_batch"] == 4
    assert record["program"]["versions"]["torch"] == torch.__version__
    assert record["program_sha256"] == sha256(folder / "generator.pt2")
    assert record["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (record["input_shape"], record["output_shape"]) == ([3, 32, 64], [3, 32, 64])
    assert record["image_size"] == load_engine(folder, device=CPU).manifest.image_size == 48
    assert record["psnr_db"]["images"] == 3
    assert record["psnr_db"]["worst"] > 100


@pytest.mark.slow
def test_a_program_of_frames_is_the_network_between_two_roundings(tmp_path, images, capsys):
    folder, backend = tmp_path / "export", partial(exported_program.export, rewrites=())
    manifest = run_export(folder, images, backend=backend, frames=True)
    record = json.loads((folder / "manifest.json").read_text())
    assert (record["program"]["dtype"], record["program"]["precision"]) == ("uint8", "fp32")
    assert (record["input_shape"], record["output_shape"]) == ([3, 32, 64], [3, 32, 64])
    # An error that is uniform over one of 255 steps of the range: 10 log10(12 * 255^2) dB. The inputs are no whole
    # levels; were they rounded for the program alone, it would be less.
    assert manifest.psnr_db["mean"] == pytest.approx(58.92, abs=0.1)
    engine, frames = load_engine(folder, device=CPU), to_frames(images)
    with torch.inference_mode():
        expected = to_frames(inference_view(network(), norm_stats="instance")(from_frames(frames)))
    assert torch.equal(engine.frames(frames), expected)
    assert torch.equal(engine(images), from_frames(expected))
    with pytest.raises(ValueError, match=r"too far from fp32: 58\.\d dB .* where min_psnr=60 is"):
        run_export(folder, images, backend=backend, frames=True, min_psnr=60)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="what is chosen without a GPU is tested")
@pytest.mark.parametrize("choice", [auto.export, partial(fastest.export, batch_size=2, backends=["exported_program"])])
def test_a_backend_that_chooses_passes_frames_on(tmp_path, images, choice):
    program = run_export(tmp_path / "export", images, backend=choice, frames=True).program
    assert (program.backend, program.dtype, program.precision) == ("exported_program", "uint8", "fp32")
    for row in program.considered or []:
        assert (row["precision"], row["verdict"]) == ("fp32", "kept")
        assert row["worst_psnr"] == pytest.approx(58.92, abs=0.2)


def test_an_engine_takes_any_batch_up_to_its_largest(tmp_path, images):
    run_export(tmp_path / "export", images, backend=partial(exported_program.export, max_batch=4))
    engine = load_engine(tmp_path / "export", device=CPU)
    assert engine(images).shape == (3, 3, 32, 64)
    engine.check_batch_size(4)
    with pytest.raises(ValueError, match=r"batch_size=5 .* 4 images at most: .* backend\.max_batch=5"):
        engine.check_batch_size(5)
    with pytest.raises(ValueError, match="batch_size=0"):
        engine.check_batch_size(0)


@pytest.mark.slow
def test_a_program_too_far_from_fp32_leaves_nothing_and_keeps_the_old_one(tmp_path, images):
    folder = tmp_path / "export"
    with pytest.raises(ValueError, match=r"too far from fp32: .* dB .* \([012]\), .* over 3, where min_psnr=100"):
        run_export(folder, images, backend=partial(exported_program.export, precision="bf16"), min_psnr=100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt"]
    run_export(folder, images)
    before = sha256(folder / "manifest.json")
    with pytest.raises(ValueError, match="too far"):
        run_export(folder, images, backend=partial(exported_program.export, precision="bf16"), min_psnr=100)
    assert sha256(folder / "manifest.json") == before


def test_loading_refuses_what_is_missing_or_damaged(tmp_path, images):
    folder = tmp_path / "export"
    with pytest.raises(ValueError, match=r"no exported generator in .*export: export first"):
        load_engine(folder, device=CPU)
    run_export(folder, images)
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest[:50])
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        load_engine(folder, device=CPU)
    (folder / "manifest.json").write_text(manifest.replace('"gpu": null', '"gpu": "NVIDIA H100"'))
    with pytest.raises(ValueError, match=r"runs on a GPU \(NVIDIA H100\), but device=cpu"):
        load_engine(folder, device=CPU)
    (folder / "manifest.json").write_text(manifest)
    with (folder / "generator.pt2").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=r"generator\.pt2 is missing, damaged or was replaced"):
        load_engine(folder, device=CPU)


def test_loading_refuses_another_architecture_and_other_versions(tmp_path, images, monkeypatch):
    folder = tmp_path / "export"
    run_export(folder, images)
    manifest = (folder / "manifest.json").read_text()
    made = manifest.replace('"gpu": null', '"gpu": "NVIDIA H100"')
    (folder / "manifest.json").write_text(made.replace('"architecture": null', '"architecture": "9.0"'))
    here = {"gpu": "NVIDIA L4", "architecture": "8.9", "driver": "580"}
    monkeypatch.setattr("p2p.deploy.engine.gpu_facts", lambda device: here)
    with pytest.raises(ValueError, match=r"NVIDIA H100 \(compute capability 9\.0\) and cannot run on NVIDIA L4"):
        load_engine(folder, device=CPU)
    (folder / "manifest.json").write_text(manifest.replace(torch.__version__, "99.1.0"))
    with pytest.raises(ValueError, match=rf"made with torch 99\.1\.0, .* here, {re.escape(torch.__version__)}: export"):
        load_engine(folder, device=CPU)
    (folder / "manifest.json").write_text(manifest.replace('"exported_program"', '"onyx"'))
    with pytest.raises(ValueError, match=r"generator\.pt2 needs backend=onyx, which this p2p does not have: export"):
        load_engine(folder, device=CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is what is tested")
def test_auto_falls_back_and_says_why(tmp_path, images, caplog):
    caplog.set_level("INFO")
    manifest = run_export(tmp_path / "export", images, backend=auto.export)
    assert manifest.program.backend == "exported_program"
    assert "backend: exported_program, because there is no CUDA GPU" in caplog.text
    with pytest.raises(ValueError, match="torch_tensorrt cannot be used, because there is no CUDA GPU"):
        torch_tensorrt.export(network(), images, tmp_path)


@pytest.mark.parametrize("precision, hint", [("int8", ", or backend=triton"), ("fp17", "")])
def test_a_precision_that_a_backend_does_not_have_is_named(tmp_path, images, precision, hint):
    with pytest.raises(ValueError, match=f"backend.precision={precision} is not known here: .* fp32{hint}$"):
        exported_program.export(network(), images, tmp_path, precision=precision)


def test_a_backend_can_be_shown_other_images_than_those_it_is_judged_by(tmp_path, images):
    seen = []

    def backend(network, example_NCHW, folder):
        seen.append(example_NCHW)
        return exported_program.export(network, example_NCHW, folder)

    manifest = run_export(tmp_path / "export", images, backend=backend, example_NCHW=images[:1] / 2)
    assert torch.equal(seen[0], images[:1] / 2)
    assert manifest.psnr_db["images"] == len(images)


def test_checkpoints_that_are_none_are_named(tmp_path):
    unet = UNet(image_size=32, width=4)
    path = tmp_path / "x.ckpt"
    with pytest.raises(ValueError, match=r"no checkpoint .*x\.ckpt: train first"):
        load_weights(unet, path)
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.ckpt is not a checkpoint of p2p, or is damaged"):
            load_weights(unet, path)
    torch.save(
        {"state_dict": {f"generator.{k}": v for k, v in UNet(image_size=64, width=4).state_dict().items()}}, path
    )
    with pytest.raises(ValueError, match=r"x\.ckpt holds another generator"):
        load_weights(unet, path)


def test_psnr_against_its_formula():
    a = torch.zeros(3, 3, 4, 4)
    b = a.clone()
    b[1] += 0.02  # an error of 1% of the range [-1, 1]: 40 dB
    b[2, 0, 0, 0] = 2.0  # one value of 48 wrong by all of it
    torch.testing.assert_close(psnr_db(a, b), torch.tensor([120.0, 40.0, 16.812412]))


def test_the_gate_counts_the_worst_image_and_names_it():
    figures = summary(torch.tensor([50.0, 41.5, 60.5]), ["a", "deep/b", "c"])
    assert figures == {"mean": pytest.approx(152 / 3), "worst": 41.5, "worst_image": "deep/b", "images": 3}
    check(figures, min_psnr=41.5)
    with pytest.raises(ValueError, match=r"41\.5 dB .* \(deep/b\), 50\.7 dB on average over 3, where min_psnr=42 is"):
        check(figures, min_psnr=42)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_value_that_is_no_number_fails_the_gate(value):
    outputs = torch.zeros(3, 3, 4, 4)
    outputs[1, 2, 3, 3] = value
    figures = summary(psnr_db(outputs, torch.zeros(3, 3, 4, 4)), ["a", "b", "c"])
    assert figures["worst_image"] == "b"
    with pytest.raises(ValueError, match=r"on its worst validation image \(b\)"):
        check(figures, min_psnr=-1000)


@pytest.mark.parametrize("rewrites", [(), ("last",), ("last", "blocks")], ids="+".join)
def test_batch_norm_is_folded_and_a_backend_rewrites_as_it_is_told(rewrites, tmp_path, images):
    seen = []

    def backend(generator, example_NCHW, folder):
        seen.append(generator)
        return exported_program.export(generator, example_NCHW, folder, rewrites=rewrites)

    manifest = run_export(tmp_path / "export", images, backend=backend, norm_stats="running")
    assert manifest.psnr_db["worst"] > 100
    assert "BatchNorm2d" not in {type(module).__name__ for module in seen[0].modules()}
    nodes = torch.export.load(tmp_path / "export/generator.pt2").graph.nodes
    left = sum("conv_transpose2d" in str(node.target) for node in nodes)
    levels = len(network().up)
    assert left == levels - ("last" in rewrites)
    with pytest.raises(ValueError, match=r"backend\.rewrites has first, which is not known: use some of last, blocks"):
        exported_program.export(seen[0], images, tmp_path, rewrites=["first"])


def test_the_reference_is_fp32_one_image_at_a_time(images):
    unet = network()
    sizes = []
    unet.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    expected = torch.cat([unet.eval()(image[None]) for image in images]).detach()
    assert torch.equal(reference_outputs(unet, images), expected)
    assert sizes == [(1, 3, 32, 64)] * 6
