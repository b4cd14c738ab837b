"""Every rewrite computes what the network computes: in float64 to 1e-10, against the network itself."""

import copy

import pytest
import torch
from torch import nn

from p2p.deploy.rewrite import (
    Frames,
    SpaceToDepthConv2d,
    SubPixelConv2d,
    fold_batch_norm,
    fold_resize,
    space_to_depth,
    sub_pixel,
)
from p2p.models.inference_view import inference_view
from p2p.models.local_enhancer import LocalEnhancer
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet
from tests.deploy.networks import count, randomized

NETWORKS = {
    "unet, depth 5": lambda: UNet(image_size=32, width=4, in_channels=2),
    "unet, depth 8": lambda: UNet(image_size=256, width=2),
    "encoder-decoder": lambda: UNet(image_size=64, width=4, skips=False, out_channels=1),
    "resnet": lambda: ResNet(image_size=32, width=4, blocks=2),
    "local enhancer": lambda: LocalEnhancer(
        image_size=32, width=4, downsamplings=1, blocks=1, local_blocks=1, norm="batch"
    ),
    "unet, resized": lambda: UNet(image_size=32, width=4, resize_last=2),
    "unet, instance norm": lambda: UNet(image_size=32, width=4, norm="instance"),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return randomized(NETWORKS[request.param]())


def images_for(network: nn.Module) -> torch.Tensor:
    channels = next(network.parameters()).shape[1]
    torch.manual_seed(1)
    side = max(8, network.stride)
    return torch.rand(2, channels, side, 2 * side, dtype=torch.float64) * 2 - 1


def largest_difference(a: nn.Module, b: nn.Module, x: torch.Tensor) -> float:
    with torch.inference_mode():
        expected, got = a(x), b(x)
    assert expected.std() > 0.01  # not saturated, not constant: an error would be seen
    assert got.shape == expected.shape
    return (got - expected).abs().max().item()


REWRITES = {
    "fold": fold_batch_norm,
    "fold_resize": fold_resize,
    "sub_pixel": sub_pixel,
    "space_to_depth": space_to_depth,
    "all": lambda network: space_to_depth(sub_pixel(fold_batch_norm(fold_resize(network)))),
    "per image, fold and sub_pixel": lambda network: sub_pixel(
        fold_batch_norm(inference_view(network, norm_stats="instance"))
    ),
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
def test_a_rewritten_network_is_the_same_function(network, rewrite):
    x = images_for(network)
    view = (
        inference_view(network, norm_stats="instance")
        if rewrite is REWRITES["per image, fold and sub_pixel"]
        else network
    )
    assert largest_difference(view, rewrite(network), x) <= 1e-10


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
def test_the_given_network_is_left_as_it_is(rewrite):
    network = randomized(UNet(image_size=32, width=4, resize_last=2))
    layers, state = repr(network), copy.deepcopy(network.state_dict())
    rewritten = rewrite(network)
    assert repr(network) == layers
    assert repr(rewritten) != layers
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_nothing_is_left_of_norm_and_dropout():
    unet, resnet = NETWORKS["unet, depth 8"](), NETWORKS["resnet"]()
    for network in (unet, resnet):
        assert count(network, nn.BatchNorm2d, nn.Dropout, nn.Identity) >= 10
        assert count(fold_batch_norm(network.eval()), nn.BatchNorm2d, nn.Dropout, nn.Identity) == 0


def test_sub_pixel_replaces_the_last():
    last = sub_pixel(UNet(image_size=64, width=4).eval())
    assert count(last, SubPixelConv2d) == 1
    assert isinstance(last.up[-1][1], SubPixelConv2d)


LAYERS = {
    "no bias": nn.Conv2d(3, 5, 3, bias=False),
    "bias": nn.Conv2d(3, 6, 3, stride=2, padding=1),
    "groups": nn.Conv2d(4, 6, 3, groups=2),
    "reflected": nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
    "transposed": nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1),
    "transposed, groups": nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, bias=False),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("affine", [True, False])
def test_any_convolution_can_be_folded_into(layer, affine):
    network = nn.Sequential(layer, nn.Identity(), nn.BatchNorm2d(layer.out_channels, affine=affine, eps=0.1))
    network = copy.deepcopy(network).double().eval()
    torch.manual_seed(0)
    nn.init.normal_(network[2].running_mean)
    nn.init.uniform_(network[2].running_var, 0.2, 2.0)
    if affine:
        nn.init.normal_(network[2].weight)
        nn.init.normal_(network[2].bias)
    folded = fold_batch_norm(network)
    assert len(folded) == 1
    x = torch.randn(2, layer.in_channels, 7, 5, dtype=torch.float64)
    assert largest_difference(network, folded, x) <= 1e-10


def test_a_batch_norm_that_has_nothing_to_be_folded_into_stays():
    norm = nn.BatchNorm2d(4)
    for layers in ([norm], [nn.Conv2d(3, 4, 1), nn.ReLU(), norm], [nn.Conv2d(3, 4, 1), nn.Sequential(norm)]):
        assert count(fold_batch_norm(nn.Sequential(*layers).eval()), nn.BatchNorm2d) == 1
    of_the_batch = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert count(fold_batch_norm(of_the_batch), nn.BatchNorm2d) == 1


def test_a_convolution_before_two_norms_is_folded_into_both():
    shared = nn.Conv2d(2, 2, 1)
    network = nn.Sequential(shared, nn.BatchNorm2d(2), nn.ReLU(), shared, nn.BatchNorm2d(2))
    network = randomized(network, gain=1.0)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    assert largest_difference(network, fold_batch_norm(network), x) <= 1e-10


def test_folding_keeps_the_dtype_and_multiplies_in_float64():
    convolution, norm = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    network = randomized(nn.Sequential(convolution, norm)).float()
    with torch.no_grad():
        weight = network[0].weight.double() / (network[1].running_var.double() + norm.eps).sqrt()[:, None, None, None]
        expected = (weight * network[1].weight.double()[:, None, None, None]).float()
    folded = fold_batch_norm(network)
    assert folded[0].weight.dtype == folded[0].bias.dtype == torch.float32
    torch.testing.assert_close(folded[0].weight, nn.Parameter(expected, requires_grad=False), rtol=6e-8, atol=0)


@pytest.mark.parametrize(("side", "output_padding"), [(4, 0), (3, 1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("into", "out", "height", "width"), [(1, 1, 1, 1), (3, 5, 7, 2), (2, 3, 1, 6)])
def test_a_sub_pixel_convolution_is_the_transposed_one(side, output_padding, bias, into, out, height, width):
    torch.manual_seed(0)
    options = {"stride": 2, "padding": 1, "output_padding": output_padding, "bias": bias}
    transposed = nn.ConvTranspose2d(into, out, side, **options).double()
    x = torch.randn(2, into, height, width, dtype=torch.float64)
    assert largest_difference(transposed, SubPixelConv2d(transposed), x) <= 1e-10


def test_each_tap_by_hand():
    """One input of 1: the output is the kernel itself, tap k at 2i - 1 + k; counted, not computed."""
    transposed = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        transposed.weight.copy_(torch.arange(1.0, 17.0).view(1, 1, 4, 4))
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 1
    expected = torch.zeros(6, 6)
    expected[1:5, 1:5] = torch.arange(1.0, 17.0).view(4, 4)
    assert torch.equal(SubPixelConv2d(transposed)(x)[0, 0], expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("into", "out", "height", "width"), [(1, 1, 2, 2), (3, 5, 6, 10), (2, 3, 2, 8)])
def test_a_convolution_of_blocks_is_the_one_of_pixels(bias, into, out, height, width):
    torch.manual_seed(0)
    convolution = nn.Conv2d(into, out, 4, stride=2, padding=1, bias=bias).double()
    x = torch.randn(2, into, height, width, dtype=torch.float64)
    assert largest_difference(convolution, SpaceToDepthConv2d(convolution), x) <= 1e-10


def test_only_the_first_convolution_and_only_if_it_fits_is_taken_in_blocks():
    unet = space_to_depth(UNet(image_size=32, width=4).eval())
    assert isinstance(unet.down[0][1], SpaceToDepthConv2d)
    assert count(unet, SpaceToDepthConv2d) == 1
    assert count(space_to_depth(ResNet(image_size=32, width=4, blocks=1).eval()), SpaceToDepthConv2d) == 0


@pytest.mark.parametrize("rewrite", ["all", "frames"])
def test_a_rewritten_network_exports_for_any_batch(rewrite):
    network = randomized(UNet(image_size=32, width=4)).float()
    if rewrite == "frames":
        network, x = Frames(network), torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    else:
        x = torch.rand(3, 3, 32, 32) * 2 - 1
        network = space_to_depth(sub_pixel(fold_batch_norm(network)))
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(network, (x[:2],), dynamic_shapes=({0: batch},)).module()
    with torch.inference_mode():
        torch.testing.assert_close(program(x), network(x), rtol=0, atol=1e-6)


OTHERS = [
    nn.ConvTranspose2d(2, 2, 4, stride=2, padding=0),
    nn.ConvTranspose2d(2, 2, 4, stride=1, padding=1),
    nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1, groups=2),
    nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1, output_padding=1),
    nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1),
    nn.Conv2d(2, 2, 4, stride=2, padding=1),
]


@pytest.mark.parametrize("layer", OTHERS, ids=str)
def test_other_layers_are_not_replaced(layer):
    assert count(sub_pixel(nn.Sequential(layer).eval()), SubPixelConv2d) == 0


@pytest.mark.parametrize(
    "rewrite", [fold_batch_norm, sub_pixel, space_to_depth, Frames], ids=lambda rewrite: rewrite.__name__
)
def test_a_network_in_training_is_refused(rewrite):
    network = UNet(image_size=32, width=4).eval()
    network.up[1].train()
    with pytest.raises(AssertionError, match="eval mode"):
        rewrite(network)
