"""A generator in one file: `p2p to-safetensors` writes it, `p2p.load` and infer.py take it; and what p2p ships."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import p2p
from p2p import shipped
from p2p.commands import to_safetensors
from p2p.deploy import published
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet
from tests.api.conftest import seeded, trained
from tests.api.test_loading import FRAME, by_hand, refused
from tests.conftest import ROOT

FACTS = published.Published(
    generator={"_target_": "p2p.models.unet.UNet", "image_size": 32, "width": 8},
    input_channels=3,
    target_channels=3,
    norm_stats="instance",
    direction="AtoB",
    preprocess="resize_and_crop",
    multiple=None,
    image_size=32,
)


def rounded(network):
    """With its kernels, and these alone, rounded to float16."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.half().float()
    return network


def test_a_run_becomes_one_file_that_both_ways_translate_with(tmp_path, capsys):
    average = seeded(UNet(image_size=32, width=8), seed=7)
    ema = {"generator": average.state_dict()}
    options = ["callbacks=ema", "norm_stats=running", "data.direction=BtoA"]
    trained(tmp_path / "run", *options, names=["last"], ema=ema)
    file = tmp_path / "out/mine.safetensors"
    to_safetensors.main([str(tmp_path / "run/checkpoints/last.ckpt"), str(file)])
    assert "the ema weights" in capsys.readouterr().out
    assert published.read(file).stride == 32
    translate = p2p.load(file, device="cpu")
    expected = by_hand(rounded(average), norm_stats="running")
    assert (translate(FRAME) == expected).all()
    assert (translate.norm_stats, translate.direction, translate.image_size) == ("running", "BtoA", 32)
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    p2p.infer([f"weights={file}", f"input={tmp_path}/a.png", f"run_dir={tmp_path}/it", "device=cpu"])
    assert (np.asarray(Image.open(tmp_path / "it/images/a.png")) == expected).all()
    with pytest.raises(SystemExit, match=r"call it mine\.safetensors"):
        to_safetensors.main([str(tmp_path / "run/checkpoints/last.ckpt"), str(tmp_path / "mine.pt")])
    with pytest.raises(SystemExit, match=r"/run is a folder: name a checkpoint, such as"):
        to_safetensors.main([str(tmp_path / "run"), str(tmp_path / "other.safetensors")])


def test_infer_pads_to_the_networks_own_stride_as_load_does(tmp_path):
    """A ResNet takes multiples of 4, and the mode of its training multiples of 32."""
    file, generator = tmp_path / "mine.safetensors", {"_target_": "p2p.models.resnet.ResNet", "width": 4, "blocks": 1}
    facts = FACTS._replace(generator=generator | {"image_size": 32}, multiple=32, stride=4)
    published.write(file, seeded(ResNet(image_size=32, width=4, blocks=1)), facts)
    image = np.asarray(Image.fromarray(FRAME).resize((50, 41)))
    Image.fromarray(image).save(tmp_path / "a.png")
    p2p.infer([f"weights={file}", f"input={tmp_path}/a.png", f"run_dir={tmp_path}/it", "device=cpu", "size=input"])
    expected = p2p.load(file, device="cpu")(image, size="input")
    assert (np.asarray(Image.open(tmp_path / "it/images/a.png")) == expected).all()


def test_the_shipped_model_draws_nearer_to_the_render_than_the_drawing_is():
    translate = p2p.load("emoji", device="cpu")
    assert shipped.models()["emoji"].stat().st_size <= 8e6
    gains = []
    for path in sorted((ROOT / "data/samples/val").glob("*.jpg")):
        drawing, render = np.split(np.asarray(Image.open(path)), 2, axis=1)
        errors = [np.square(image / 255 - render / 255).mean() for image in (drawing, translate(drawing, size="input"))]
        gains.append(10 * np.log10(errors[0] / errors[1]))
    assert np.mean(gains) > 0.5


def test_what_is_wrong_with_a_file_gets_a_sentence_and_none_of_its_code_runs(tmp_path):
    path, network = tmp_path / "x.safetensors", seeded(UNet(image_size=32, width=8))
    published.write(path, network, FACTS)
    whole = path.read_bytes()
    for facts, words in (
        (
            {"generator": {"_target_": "os.system", "command": f"touch {tmp_path}/ran"}},
            "os.system, which is not of p2p",
        ),
        ({"generator": {"_target_": "p2p.models.unet.UNet", "width": -1}}, "generator.width=-1 is too small"),
        (
            {"generator": {"_target_": "p2p.models.unet.UNet", "width": 4}},
            "does not fit the networks of this version of p2p",
        ),
        ({"image_size": 10**9}, "image_size cannot be 1000000000"),
        ({"more": 1}, "is damaged, or is not a file of p2p to-safetensors"),
    ):
        save_file(network.state_dict(), path, {"p2p": json.dumps(FACTS._asdict() | facts)})
        assert words in refused(path)
    assert not (tmp_path / "ran").exists()
    for data in (whole[:-1], whole[:20], b"", b"\xff" * 100):
        path.write_bytes(data)
        assert "is damaged, or is not a file of p2p" in refused(path)
    save_file({"a": torch.zeros(1)}, path)
    assert "p2p to-safetensors (it holds weights, and does not say of which network): write it" in refused(path)
    save_file({"a": torch.zeros(1)}, path, {"p2p": json.dumps({"norm_stats": "running", "input_channels": 3})})
    assert "(it does not say generator, target_channels, direction, preprocess, multiple, image_size)" in refused(path)
    network.up[0][1].weight.data[0, 0, 0, 0] = 1e5
    with pytest.raises(ValueError, match=r"up\.0\.1\.weight of the generator is too large for float16"):
        published.write(path, network, FACTS)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["weights=emoji"], "weights=emoji has no images of its own: add input="),
        (["weights=~nobody-here/x.safetensors", "input=x"], "weights=~nobody-here/x.safetensors is not a model that"),
        (["weights=nope", "input=x"], "weights=nope is not a model that p2p ships, and there is no such .safeten"),
        (["weights=emoji", "input=x", "stale=use"], "stale=use would be ignored, because weights= names what"),
    ],
)
def test_settings_that_cannot_be(overrides, words):
    with pytest.raises(ValueError) as error:
        p2p.infer(overrides)
    assert words in str(error.value)
