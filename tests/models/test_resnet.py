import pytest
import torch
from torch import nn
from torch.nn import functional as F

from p2p.deploy.backends import exported_program
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.resnet import Block, ResNet


@pytest.mark.parametrize(("blocks", "millions"), [(9, 11.383), (6, 7.841)])
def test_parameter_counts_of_the_reference(blocks, millions):
    network = ResNet(blocks=blocks)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == blocks


def of_pix2pixhd(into: int) -> int:
    """Weights and biases of its GlobalGenerator with ngf=64 and n_downsampling=4, layer after layer."""
    ends = 49 * into * 64 + 64 + 49 * 64 * 3 + 3
    down = sum(9 * c * 2 * c + 2 * c for c in (64, 128, 256, 512))
    blocks = 9 * 2 * (9 * 1024 * 1024 + 1024)
    up = sum(9 * c * c // 2 + c // 2 for c in (1024, 512, 256, 128))
    return ends + down + blocks + up


@pytest.mark.parametrize(("into", "parameters"), [(3, 182_443_267), (36, 182_546_755)])
def test_the_global_generator_of_pix2pixhd(into, parameters):
    """36 channels are its Cityscapes': 35 labels and the edges between instances."""
    with torch.device("meta"):
        network = ResNet(in_channels=into, downsamplings=4, norm="instance", dropout=0.0)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters == of_pix2pixhd(into)
    assert network.stride == 16


def functional(weights: dict[str, torch.Tensor], x: torch.Tensor, *, norm: str, blocks: int, down: int) -> torch.Tensor:
    """The network from its weights in their order, by torch's functions: padding is written down by hand."""
    tensors = iter(weights.values())

    def normalized(y):
        if norm != "none":
            dims = (0, 2, 3) if norm == "batch" else (2, 3)
            mean, variance = y.mean(dims, keepdim=True), y.var(dims, correction=0, keepdim=True)
            y = (y - mean) / (variance + 1e-5).sqrt()
        if norm == "batch":
            y = y * next(tensors)[:, None, None] + next(tensors)[:, None, None]
        return y

    def mirrored(y, width):
        y = torch.cat([y[..., 1 : width + 1].flip(-1), y, y[..., -width - 1 : -1].flip(-1)], -1)
        return torch.cat([y[..., 1 : width + 1, :].flip(-2), y, y[..., -width - 1 : -1, :].flip(-2)], -2)

    def weight_and_bias():
        return next(tensors), None if norm == "batch" else next(tensors)

    x = F.relu(normalized(F.conv2d(mirrored(x, 3), *weight_and_bias())))
    for _ in range(down):
        x = F.relu(normalized(F.conv2d(x, *weight_and_bias(), stride=2, padding=1)))
    for _ in range(blocks):
        y = F.relu(normalized(F.conv2d(mirrored(x, 1), *weight_and_bias())))
        x = x + normalized(F.conv2d(mirrored(y, 1), *weight_and_bias()))
    for _ in range(down):
        x = F.conv_transpose2d(x, *weight_and_bias(), stride=2, padding=1, output_padding=1)
        x = F.relu(normalized(x))
    x = torch.tanh(F.conv2d(mirrored(x, 3), next(tensors), next(tensors)))
    assert next(tensors, None) is None
    return x


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize(("shape", "down"), [((2, 1, 16, 28), 2), ((1, 5, 8, 12), 2), ((1, 2, 32, 48), 4)])
def test_forward_equals_the_functional_form(norm, shape, down):
    torch.manual_seed(0)
    network = ResNet(
        in_channels=shape[1], out_channels=2, blocks=3, width=4, downsamplings=down, norm=norm, dropout=0.0
    ).double()
    initialize(network, gain=0.2)
    x = torch.rand(*shape, dtype=torch.float64) * 2 - 1
    out = network(x)
    assert out.shape == (shape[0], 2, *shape[2:])
    expected = functional(dict(network.named_parameters()), x, norm=norm, blocks=3, down=down)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)


def test_dropout_stands_inside_the_blocks_alone():
    network = ResNet(blocks=2, width=4)
    outside = [module for module in network if not isinstance(module, Block)]
    assert not any(isinstance(module, nn.Dropout) for module in outside)
    images = torch.rand(1, 3, 16, 16)
    assert not torch.equal(network(images), network(images))
    without = ResNet(blocks=2, width=4, dropout=0.0)
    assert torch.equal(without(images), without(images))
    assert without.state_dict().keys() == network.state_dict().keys()


def test_sides_that_do_not_fit_are_named():
    for size, near in ((30, "28 or 32"), (4, "8 or 12"), (0, "8 or 12"), (257, "256 or 260")):
        with pytest.raises(ValueError, match=f"image_size={size} does not suit a ResNet.* use {near}$"):
            ResNet(image_size=size, width=4)
    with pytest.raises(ValueError, match="norm=group"):
        ResNet(norm="group", width=4)


@pytest.mark.parametrize("norm_stats", ["instance", "running"])
def test_it_exports_for_any_batch(norm_stats, tmp_path):
    torch.manual_seed(0)
    network = ResNet(blocks=1, width=4)
    initialize(network, gain=0.2)
    images = torch.rand(5, 3, 16, 24) * 2 - 1
    network.train()(images * 2)  # running averages far from their start
    view = inference_view(network, norm_stats=norm_stats)
    if norm_stats == "instance":  # what BatchNorm computes when it trains on one image, dropout off
        network.train().apply(lambda module: module.eval() if isinstance(module, nn.Dropout) else None)
        expected = torch.cat([network(image[None]) for image in images]).detach()
    else:
        expected = network.eval()(images).detach()
    made = exported_program.export(view, images, tmp_path)
    program = exported_program.load(made, tmp_path, device=torch.device("cpu"))
    for batch in (1, 2, 5):
        torch.testing.assert_close(program(images[:batch]), expected[:batch], rtol=0, atol=1e-5)


def test_no_width():
    with pytest.raises(ValueError, match=r"^generator\.width=-4 is too small: use 1 or more$"):
        ResNet(image_size=64, width=-4)
