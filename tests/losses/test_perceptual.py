"""VGG19's activations against torchvision's layers; the weights are random, as the network's file is large."""

import copy
from functools import cache
from urllib.error import URLError

import pytest
import torch
from torchvision.models import VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

from p2p.losses.perceptual import Perceptual


@cache
def features():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_layers(cfgs["E"], batch_norm=False)


def vgg19_file():
    """As torchvision's, without its classifier."""
    return {f"features.{name}": value for name, value in features().state_dict().items()}


@pytest.fixture
def fetched(monkeypatch):
    monkeypatch.setattr(VGG19_Weights, "get_state_dict", lambda self, **options: vgg19_file())


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_formula_of_pix2pixhd(channels, fetched):
    """Slices of torchvision's layers end at 2, 7, 12, 21 and 30; weights 1/32, 1/16, 1/8, 1/4, 1."""
    torch.manual_seed(0)
    fake, target = torch.rand(2, 1, channels, 32, 48, dtype=torch.float64) * 2 - 1  # in float32, signs would differ
    fake.requires_grad_()
    loss, layers = Perceptual().double(), copy.deepcopy(features()).double()
    expected, seen = 0.0, torch.cat([fake, target]).expand(-1, 3, -1, -1)
    for share, begin, end in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), (0, 2, 7, 12, 21), (2, 7, 12, 21, 30), strict=True):
        for layer in layers[begin:end]:
            seen = layer(seen)
        expected = expected + share * (seen[0] - seen[1]).abs().mean()
    value = loss(fake, target, target)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(expected, fake)
    value.backward()
    assert (fake.grad - gradient).norm() < 1e-3 * gradient.norm()
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_what_cannot_be_fetched_is_one_sentence(monkeypatch):
    def offline(self, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(VGG19_Weights, "get_state_dict", offline)
    with pytest.raises(
        ValueError, match=r"^the pretrained network of losses\.perceptual cannot be fetched \(.*no route"
    ):
        Perceptual()


def test_a_file_of_weights(tmp_path):
    torch.save(vgg19_file(), tmp_path / "vgg19.pth")
    loss = Perceptual(weights=str(tmp_path / "vgg19.pth"))
    assert torch.equal(loss.features[28].weight, features()[28].weight)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "cut.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match=r"cut\.safetensors cannot be read: use"):
        Perceptual(weights=str(tmp_path / "cut.safetensors"))
    for name, said in (("other", "holds no VGG19"), ("text", "cannot be read"), ("none", "cannot be read")):
        with pytest.raises(ValueError, match=rf"^losses\.perceptual\.weights=.*{name}\.pth {said}"):
            Perceptual(weights=str(tmp_path / f"{name}.pth"))


def test_channels_that_are_no_colours(fetched):
    images = torch.zeros(1, 4, 16, 16)
    with pytest.raises(ValueError, match="images of 1 or 3 channels, and these have 4"):
        Perceptual()(images, images, images)
