"""Both ways between this project and the reference's module structure, with strict=True and equal outputs."""

import importlib.util
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from p2p.interop.reference import load, read, recognize_discriminator, recognize_generator, to_reference
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.patchgan import PatchGAN
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet

spec = importlib.util.spec_from_file_location("networks", Path(__file__).parent / "reference_networks.py")
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)

NETWORKS = {
    "unet_128": (theirs.unet, {"depth": 7}),
    "unet_256": (theirs.unet, {"depth": 8}),
    "resnet_6blocks": (theirs.resnet, {"blocks": 6}),
    "resnet_9blocks": (theirs.resnet, {"blocks": 9}),
}


def settle(network):
    """Weights and running averages far from their start, and eval mode."""
    torch.manual_seed(0)
    initialize(network, gain=0.2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
            nn.init.normal_(module.bias)
    return network.eval()


def image(channels=3, side=256):
    return torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_generator_comes_in_and_goes_out(name, norm, tmp_path):
    make, size = NETWORKS[name]
    x = image(1, side=256 if make is theirs.unet else 64)
    reference = settle(make(**size, norm=norm, width=6, into=1, out=2))
    torch.save(reference.state_dict(), tmp_path / "x.pth")
    weights = read(tmp_path / "x.pth")
    found = recognize_generator(weights, tmp_path / "x.pth")
    assert str(found) == f"{name}, width 6, norm {norm}, 1 to 2 channels"
    network = instantiate(found.config).eval()
    load(network, weights, tmp_path / "x.pth")
    with torch.no_grad():
        expected = reference(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-6)
        # The paper's test mode: each image by its own statistics. Dropout off, for it is random.
        reference.train().apply(lambda module: module.eval() if isinstance(module, nn.Dropout) else None)
        outputs = inference_view(network, norm_stats="instance")(x)
        torch.testing.assert_close(outputs, reference(x), rtol=0, atol=1e-5)

    other = make(**size, norm=norm, width=6, into=1, out=2).eval()
    other.load_state_dict(to_reference(network), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(other(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("layers", "channels"), [(1, 6), (3, 6), (5, 6), (3, 3)])
def test_a_discriminator_comes_in_and_goes_out(layers, channels, norm, tmp_path):
    reference = settle(theirs.patchgan(layers=layers, channels=channels, norm=norm))
    found = recognize_discriminator(reference.state_dict(), tmp_path, input_channels=3, target_channels=3)
    assert str(found) == f"PatchGAN of {layers} layers, width 4, norm {norm}"
    network = instantiate(found.config).eval()
    load(network, reference.state_dict(), tmp_path)
    a, b = image(), image().flip(-1)
    with torch.no_grad():
        expected = reference(torch.cat([a, b], 1) if channels == 6 else b)
        torch.testing.assert_close(network(a, b), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    other = theirs.patchgan(layers=layers, channels=channels, norm=norm)
    other.load_state_dict(to_reference(network), strict=True)
    for key, value in reference.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_pixel_discriminator_comes_in_and_goes_out(norm, tmp_path):
    reference = settle(theirs.pixelgan(norm=norm))
    found = recognize_discriminator(reference.state_dict(), tmp_path, input_channels=3, target_channels=3)
    assert str(found) == f"PixelGAN, width 4, norm {norm}"
    network = instantiate(found.config).eval()
    load(network, reference.state_dict(), tmp_path)
    a, b = image(side=16), image(side=16).flip(-1)
    with torch.no_grad():
        torch.testing.assert_close(network(a, b), reference(torch.cat([a, b], 1)), rtol=0, atol=1e-5)
    theirs.pixelgan(norm=norm).load_state_dict(to_reference(network), strict=True)


@pytest.mark.parametrize("dropout", [True, False])
def test_dropout_shifts_the_keys_of_a_resnet_alone(dropout, tmp_path):
    for make, size in (NETWORKS["unet_128"], NETWORKS["resnet_6blocks"]):
        reference = settle(make(**size, dropout=dropout))
        found = recognize_generator(reference.state_dict(), tmp_path)
        network = instantiate(found.config).eval()
        load(network, reference.state_dict(), tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(network(image()), reference(image()), rtol=0, atol=1e-6)
        make(**size, dropout=dropout).load_state_dict(to_reference(network), strict=True)
        assert found.arguments.get("dropout", 0.5 * dropout) == 0.5 * dropout


def test_files_of_old_versions(tmp_path):
    """`module.`, running averages of an InstanceNorm (torch 0.3), no num_batches_tracked, and no archive."""
    reference = settle(theirs.unet(depth=7, norm="instance"))
    weights = {f"module.{key}": value for key, value in reference.state_dict().items()}
    weights |= {f"module.model.model.1.model.2.{leaf}": torch.ones(8) for leaf in ("running_mean", "running_var")}
    torch.save(weights, tmp_path / "instance.pth", _use_new_zipfile_serialization=False)
    batch = settle(theirs.unet(depth=7, norm="batch"))
    weights = {key: value for key, value in batch.state_dict().items() if "num_batches" not in key}
    torch.save(weights, tmp_path / "batch.pth", _use_new_zipfile_serialization=False)
    for name, expected in (("instance", reference), ("batch", batch)):
        path = tmp_path / f"{name}.pth"
        found = recognize_generator(read(path), path)
        assert found.arguments["norm"] == name
        network = instantiate(found.config).eval()
        load(network, read(path), path)
        with torch.no_grad():
            torch.testing.assert_close(network(image()), expected(image()), rtol=0, atol=1e-6)


def test_without_norm_there_are_no_biases_in_the_reference(tmp_path):
    reference = settle(theirs.unet(depth=5, norm="none"))
    found = recognize_generator(reference.state_dict(), tmp_path)
    network = instantiate(found.config).eval()
    load(network, reference.state_dict(), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(network(image()), reference(image()), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="a UNet with norm=none has biases"):
        to_reference(network)


def test_the_keys_of_the_published_models():
    """As REFERENCE names them: the first of a U-Net, the ends of a discriminator and of a ResNet."""
    keys = list(to_reference(UNet(image_size=256, width=2)))
    assert {"model.model.0.weight", "model.model.1.model.1.weight", "model.model.1.model.3.model.1.weight"} <= {*keys}
    assert "model.model.3.bias" in keys and len([key for key in keys if key.endswith("weight")]) == 16 + 13
    assert next(iter(to_reference(PatchGAN(width=2)))) == "model.0.weight"
    assert list(to_reference(PatchGAN(width=2)))[-1] == "model.11.bias"
    assert list(to_reference(ResNet(width=2)))[-1] == "model.26.bias"


def test_files_that_are_none_are_named(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(ValueError, match=r"no file .*x\.pth"):
        read(path)
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.pth is not a state dict of pytorch-Cycle.*, or is damaged"):
            read(path)
    for thing in ([1, 2], {"state_dict": {"generator.x": torch.ones(1)}}):
        torch.save(thing, path)
        with pytest.raises(ValueError, match=r"x\.pth is not a state dict of pytorch-CycleGAN-and-pix2pix: its _net_G"):
            read(path)
    discriminator = theirs.patchgan().state_dict()
    for weights in (discriminator, {}, {"model.1.weight": torch.ones(1)}):
        with pytest.raises(ValueError, match=r"x\.pth holds no generator of pytorch-CycleGAN-and-pix2pix"):
            recognize_generator(weights, path)
    generator = theirs.unet(depth=5).state_dict()
    for weights in (generator, {}, theirs.resnet(blocks=6).state_dict()):
        with pytest.raises(ValueError, match=r"x\.pth holds no discriminator of pytorch-CycleGAN-and-pix2pix"):
            recognize_discriminator(weights, path, input_channels=3, target_channels=3)
    with pytest.raises(ValueError, match=r"x\.pth judges 6 channels, which are not the 1 \+ 3"):
        recognize_discriminator(discriminator, path, input_channels=1, target_channels=3)
    for key, wrong in (("model.model.1.model.1.weight", torch.ones(1)), ("model.model.9.weight", torch.ones(1))):
        with pytest.raises(ValueError, match=r"x\.pth looks like a unet_32, .* not all of its weights fit"):
            recognize_generator(generator | {key: wrong}, path)
    generator.pop("model.model.3.bias")
    with pytest.raises(ValueError, match="not all of its weights fit"):
        recognize_generator(generator, path)
    with pytest.raises(ValueError, match="U-Net of 9 downsamplings: only 5 to 8"):
        recognize_generator(theirs.unet(depth=9, width=2).state_dict(), path)
    with pytest.raises(ValueError, match=r"x\.pth does not fit the UNet"):
        load(UNet(image_size=64, width=4), theirs.unet(depth=5).state_dict(), path)
    with pytest.raises(ValueError, match="no counterpart of a UNet"):
        to_reference(UNet(image_size=32, width=4, skips=False))
    with pytest.raises(ValueError, match="no counterpart of a BatchNorm2d"):
        to_reference(nn.BatchNorm2d(1))
