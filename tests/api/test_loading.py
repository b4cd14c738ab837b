"""`p2p.load`: of a run, an export, a checkpoint or a .pth; what is not there or damaged gets a sentence."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import p2p
from p2p.batch import from_frames, to_frames
from p2p.models.inference_view import inference_view
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet
from tests.api.conftest import exported, seeded, trained
from tests.conftest import ROOT, picture
from tests.interop import reference_networks as theirs

FRAME = np.asarray(picture(32, 32))


def by_hand(network, frame_HWC=FRAME, norm_stats="instance"):
    """What a network makes of a frame at its size, in 8 bits."""
    with torch.no_grad():
        view = inference_view(network, norm_stats=norm_stats)
        return to_frames(view(from_frames(torch.from_numpy(frame_HWC.copy())[None])))[0].numpy()


def refused(*arguments, **keywords):
    with pytest.raises(ValueError) as error:
        p2p.load(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_export_is_loaded_without_what_trains(folder):
    """Nor does `import p2p` import what takes seconds. A fresh interpreter, because this one has it all."""
    code = """if True:
        import sys
        import p2p
        print(sorted({"torch", "numpy", "PIL", "hydra", "omegaconf"} & set(sys.modules)))
        p2p.load(sys.argv[1], device="cpu")
        print(sorted(name for name in sys.modules if name.startswith(("p2p.training", "lightning", "torchvision"))))
        print(sorted({"hydra", "torch._dynamo", "sympy"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "[]"] and done.stderr == ""


def test_a_run_is_loaded_from_its_checkpoints(tmp_path):
    generators = trained(tmp_path / "run", "data.direction=BtoA")
    for options, name in (({}, "last"), ({"checkpoint": "last"}, "last"), ({"checkpoint": "best"}, "best")):
        translate = p2p.load(tmp_path / "run", device="cpu", **options)
        assert (translate(FRAME) == by_hand(generators[name])).all()
        assert translate.source == tmp_path / f"run/checkpoints/{name}.ckpt"
    translate = p2p.load(str(tmp_path / "run/checkpoints/best.ckpt"), device="cpu")
    assert (translate(FRAME) == by_hand(generators["best"])).all()
    assert (translate.norm_stats, translate.direction, translate.image_size) == ("instance", "BtoA", 32)
    (tmp_path / "run/train.yaml").unlink()
    assert "best.ckpt is not a checkpoint of p2p, is damaged, or" in refused(translate.source)


def test_the_weights_and_statistics_are_those_of_the_validation(tmp_path):
    average = seeded(UNet(image_size=32, width=8), seed=7)
    for module in average.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 0.1
    ema = {"generator": average.state_dict()}
    generators = trained(tmp_path / "ema", "callbacks=ema", "norm_stats=running", names=["last"], ema=ema)
    translate = p2p.load(tmp_path / "ema", device="cpu")
    assert (translate(FRAME) == by_hand(average, norm_stats="running")).all()
    assert (by_hand(average, norm_stats="running") != by_hand(average)).any()
    trained(tmp_path / "plain", "callbacks=ema", "callbacks.ema.validate=false", names=["last"], ema=ema)
    assert (p2p.load(tmp_path / "plain", device="cpu")(FRAME) == by_hand(generators["last"])).all()


def test_a_run_of_any_size_needs_no_export_for_each(tmp_path):
    """preprocess=none leaves sizes as they are, which one program cannot take."""
    generators = trained(tmp_path / "run", "transform.preprocess=none", "data.target_channels=1", names=["last"])
    translate = p2p.load(tmp_path / "run", device="cpu")
    for width, height in ((64, 32), (96, 64)):
        frame = np.asarray(picture(width, height))
        assert (translate(frame) == by_hand(generators["last"], frame)).all()
    assert [each.size for each in translate([picture(64, 32), picture(70, 90), picture(64, 32)])] == [
        (64, 32),
        (64, 96),
        (64, 32),
    ]
    assert translate(picture(70, 90), restore_size=True).size == (70, 90) and translate(picture(70, 90)).mode == "L"


@pytest.mark.parametrize(
    ("network", "stride"),
    [(lambda: theirs.unet(depth=5), 32), (lambda: theirs.resnet(blocks=6), 4)],
    ids=["unet", "resnet"],
)
def test_a_file_of_the_reference(tmp_path, network, stride):
    """Against the reference's own network at batch 1, where its BatchNorm goes by the image."""
    reference = network()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path / "latest_net_G.pth"
    torch.save(reference.state_dict(), path)
    translate = p2p.load(path, device="cpu", image_size=64, direction="BtoA")
    assert (translate.image_size, translate.direction, translate.norm_stats) == (64, "BtoA", "instance")
    frame = np.asarray(picture(64, 64))
    assert np.abs(translate(frame).astype(int) - by_hand(reference, frame)).max() <= 1
    assert p2p.load(path, device="cpu").image_size == (32 if stride == 32 else 256)
    assert f"multiple of {stride}: image_size=70 is none" in refused(path, image_size=70)
    assert refused(path, direction="sideways") == "direction=sideways is not known: use AtoB or BtoA"
    assert (
        refused(path, checkpoint="best")
        == f"checkpoint=best applies only to a run's folder, and {path} is a .pth: leave it out"
    )


def test_an_export_of_one_size_and_its_facts(tmp_path):
    network = seeded(ResNet(in_channels=3, out_channels=4, width=4, blocks=1))
    facts = {"size": (32, 48), "max_batch": 3, "preprocess": "none", "multiple": 4, "direction": "BtoA"}
    folder = exported(tmp_path / "export", network, **facts)
    translate = p2p.load(folder, device="cpu")
    assert (translate.backend, translate.precision, translate.max_batch) == ("exported_program", "float32", 3)
    assert (translate.input_shape, translate.output_channels) == ((3, 32, 48), 4)
    assert translate.direction == "BtoA" and translate.device == torch.device("cpu")
    assert repr(translate) == (
        f"<p2p model of {folder}: 3 to 4 channels, image_size=32, exported_program, float32, device=cpu>"
    )
    for image in (np.asarray(picture(47, 33)), torch.zeros(4, 3, 32, 48)):
        assert translate(image).shape == ((32, 48, 4) if image.ndim == 3 else (4, 4, 32, 48))
    for image in (np.asarray(picture(96, 64)), torch.zeros(3, 64, 96)):
        with pytest.raises(ValueError, match=r"image: it is 96x64 after .*, and the exported program takes 48x32: exp"):
            translate(image)


def test_an_export_of_weights_that_were_replaced_is_loaded_with_a_warning(tmp_path, folder):
    folder = shutil.copytree(folder, tmp_path / "export")
    (tmp_path / "last.ckpt").write_bytes(b"of a later training")
    with pytest.warns(
        UserWarning, match=r"export was made from older weights than .*last\.ckpt has now: export"
    ) as found:
        p2p.load(folder, device="cpu")
    assert [each.filename for each in found] == [__file__]


def test_what_cannot_be_loaded_gets_a_sentence(tmp_path, folder):
    trained(tmp_path / "run", names=["last"])
    assert refused("runs/nothing").startswith("there is no runs/nothing: give the folder of a run or of an export")
    (tmp_path / "photos").mkdir()
    assert refused(tmp_path / "photos").startswith(f"there is no trained run in {tmp_path}/photos: train first")
    assert "best.ckpt" in refused(tmp_path / "run", checkpoint="best")
    assert refused(tmp_path / "run", checkpoint="worst").startswith("checkpoint=worst is not known: use last or best")
    assert "image_size=64 applies only to a .pth" in refused(tmp_path / "run", image_size=64)
    assert "direction=AtoB applies only to a .pth" in refused(folder, direction="AtoB")
    assert "is a file of an export: give its folder" in refused(folder / "generator.pt2")
    assert refused(folder, device="gpu").startswith("device=gpu is not known: use auto, cpu or cuda")
    if not torch.cuda.is_available():
        for device in ("cuda", torch.device("cuda:1")):
            assert refused(folder, device=device).startswith(f"device={device} cannot be used, because torch says")
    for path in (3, None, b"runs/mine", ["runs/mine"]):
        assert refused(path).startswith(f"path={path!r} is not valid: give the path of a run, an export")
    for side in ("64", 0, -64, 1.5, True):
        assert refused(tmp_path / "run", image_size=side).startswith(
            f"image_size={side!r} is not valid: use a whole numb"
        )
    (tmp_path / "notes.txt").write_text("x")
    assert "notes.txt is not a checkpoint of p2p, is damaged, or" in refused(tmp_path / "notes.txt")
    (tmp_path / "x.pth").write_bytes(b"")
    assert "x.pth is not a state dict of pytorch-CycleGAN-and-pix2pix, or is damaged" in refused(tmp_path / "x.pth")
    record = tmp_path / "run/train.yaml"
    record.write_text(record.read_text().replace("depth: null", "depth: 9"))
    assert "generator.depth=9 halves a side 9 times" in refused(tmp_path / "run")


def test_a_damaged_export_gets_the_sentence_of_infer(tmp_path, folder):
    folder = shutil.copytree(folder, tmp_path / "export")
    (folder / "generator.pt2").write_bytes(b"damaged")
    assert refused(folder).endswith("is missing, damaged or was replaced: export again on this machine")
    (folder / "manifest.json").write_text(json.dumps({}))
    assert "manifest.json is damaged" in refused(folder)
