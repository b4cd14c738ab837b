"""Every rewrite computes what the network computes: in float64 to 1e-10, against the network itself."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from p2p.batch import to_frames
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.rewrite import (
    Frames,
    SpaceToDepthConv2d,
    SubPixelConv2d,
    apply,
    drop_dead_taps,
    fold_batch_norm,
    inference_view,
    space_to_depth,
    sub_pixel,
)
from p2p.models.init import initialize
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet


def randomized(network: nn.Module, *, gain: float = 0.2) -> nn.Module:
    """In float64 and eval mode, every number of every layer far from what would hide a mistake."""
    torch.manual_seed(0)
    initialize(network, gain=gain)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 2.0)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return network.double().eval()


NETWORKS = {
    "unet, depth 5": lambda: UNet(image_size=32, width=4, in_channels=2),
    "unet, depth 8": lambda: UNet(image_size=256, width=2),
    "encoder-decoder": lambda: UNet(image_size=64, width=4, skips=False, out_channels=1),
    "resnet": lambda: ResNet(image_size=32, width=4, blocks=2),
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


def count(network: nn.Module, *kinds: type) -> int:
    return sum(isinstance(module, kinds) for module in network.modules())


def largest_difference(a: nn.Module, b: nn.Module, x: torch.Tensor) -> float:
    with torch.inference_mode():
        expected, got = a(x), b(x)
    assert expected.std() > 0.01  # not saturated, not constant: an error would be seen
    assert got.shape == expected.shape
    return (got - expected).abs().max().item()


REWRITES = {
    "fold": fold_batch_norm,
    "sub_pixel": sub_pixel,
    "sub_pixel, last": lambda network: sub_pixel(network, only_last=True),
    "space_to_depth": space_to_depth,
    "dead taps": lambda network: drop_dead_taps(network, images_for(network)),
    "all": lambda network: space_to_depth(sub_pixel(drop_dead_taps(fold_batch_norm(network), images_for(network)))),
    "fold and sub_pixel": lambda network: sub_pixel(fold_batch_norm(network)),
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
    network = randomized(UNet(image_size=32, width=4))
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


def test_sub_pixel_replaces_all_or_the_last():
    unet = UNet(image_size=64, width=4).eval()
    assert count(sub_pixel(unet), SubPixelConv2d) == 6
    assert count(sub_pixel(unet), nn.ConvTranspose2d) == 0
    last = sub_pixel(unet, only_last=True)
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


def kernels(network: nn.Module) -> list[int]:
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    return [layer.kernel_size[0] for layer in layers]


def test_dead_taps_are_those_of_the_single_pixel():
    unet = UNet(image_size=32, width=4).eval()
    at_32 = drop_dead_taps(unet, torch.zeros(1, 3, 32, 32))
    assert kernels(at_32) == [4, 4, 4, 4, 2, 2, 4, 4, 4, 4]
    assert at_32.down[4][1].weight.shape == (32, 32, 2, 2)
    assert kernels(drop_dead_taps(unet, torch.zeros(1, 3, 64, 64))) == [4] * 10
    assert at_32.down[4][1].padding == at_32.up[0][1].padding == (0, 0)


# Kernel, stride, padding and the size of the input, then the kernel that is left: only taps that meet a pixel count.
CROPPED = [
    (nn.Conv2d, 4, 2, 1, (2, 2), (2, 2)),
    (nn.Conv2d, 4, 2, 1, (2, 6), (2, 4)),
    (nn.Conv2d, 3, 1, 1, (1, 5), (1, 3)),
    (nn.Conv2d, 5, 1, 2, (2, 1), (3, 1)),
    (nn.Conv2d, 4, 2, 1, (3, 3), (3, 3)),  # taps 1 to 3 are used: a padding of 0 gives the same single pixel
    (nn.Conv2d, 1, 5, 1, (1, 1), (1, 1)),  # sees nothing but padding
    (nn.ConvTranspose2d, 4, 2, 1, (1, 1), (2, 2)),
    (nn.ConvTranspose2d, 4, 2, 1, (1, 3), (2, 4)),
    (nn.ConvTranspose2d, 3, 1, 1, (1, 4), (1, 3)),
    (nn.ConvTranspose2d, 3, 2, 1, (1, 1), (1, 1)),
]


@pytest.mark.parametrize(("kind", "side", "stride", "padding", "size", "left"), CROPPED)
def test_a_cropped_kernel_gives_the_same(kind, side, stride, padding, size, left):
    torch.manual_seed(0)
    network = nn.Sequential(kind(5, 3, side, stride, padding)).double().eval()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    cropped = drop_dead_taps(network, x)
    assert cropped[0].kernel_size == tuple(cropped[0].weight.shape[2:]) == left
    assert torch.allclose(cropped(x), network(x), rtol=0, atol=1e-10)
    assert cropped(x).shape == network(x).shape


def test_a_layer_with_output_padding_keeps_its_taps():
    network = nn.Sequential(nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1)).eval()
    assert kernels(drop_dead_taps(network, torch.zeros(1, 2, 1, 1))) == [3]


def test_a_layer_that_sees_two_sizes_keeps_its_taps():
    layer = nn.Conv2d(2, 2, 4, stride=2, padding=1)
    network = nn.Sequential(layer, layer).eval()
    assert kernels(drop_dead_taps(network, torch.zeros(1, 2, 4, 4))) == [4]


@pytest.mark.parametrize("rewrite", ["all", "frames"])
def test_a_rewritten_network_exports_for_any_batch(rewrite):
    network = randomized(UNet(image_size=32, width=4)).float()
    if rewrite == "frames":
        network, x = Frames(network), torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    else:
        x = torch.rand(3, 3, 32, 32) * 2 - 1
        network = space_to_depth(sub_pixel(drop_dead_taps(fold_batch_norm(network), x)))
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


def test_dead_taps_of_a_network_in_training_are_refused():
    with pytest.raises(AssertionError, match="eval mode"):
        drop_dead_taps(UNet(image_size=32, width=4), torch.zeros(1, 3, 32, 32))


def test_frames_are_the_conversions_outside_to_the_last_bit():
    network = randomized(UNet(image_size=32, width=4)).float()
    frames_NHWC = torch.randint(0, 256, (3, 32, 64, 3), dtype=torch.uint8)
    transform = Torchvision(image_size=32, preprocess="none")
    with torch.inference_mode():
        outside = to_frames(network(torch.stack([transform.eval(frame.numpy()) for frame in frames_NHWC])))
        inside = Frames(network)(frames_NHWC)
    assert (inside.dtype, inside.shape) == (torch.uint8, (3, 32, 64, 3))
    assert torch.equal(inside, outside)


class Affine(nn.Module):
    """A network of which the output is known: factor * x + shift."""

    def __init__(self, factor: float, shift: float):
        super().__init__()
        self.factor, self.shift = (nn.Parameter(torch.tensor(value)) for value in (factor, shift))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return self.factor * x_NCHW + self.shift


def test_rewrites_reach_the_network_inside_of_frames():
    network = Frames(randomized(UNet(image_size=32, width=4)).float())
    frames_NHWC = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    rewritten = apply(network, ["taps", "all", "blocks"], frames_NHWC)
    assert count(network, SubPixelConv2d) == 0 < count(rewritten, SubPixelConv2d)
    assert count(rewritten, SpaceToDepthConv2d) == 1 and count(rewritten, Frames) == 1
    difference = (rewritten(frames_NHWC).int() - network(frames_NHWC).int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 1e-3


def test_frames_round_half_to_even():
    levels = torch.arange(255, dtype=torch.uint8).view(1, 15, 17, 1)
    got = Frames(Affine(1.0, 1 / 255).eval())(levels).numpy()
    # Half a level more, in NumPy's float32; where that is a half to the last bit, rint goes to the even level.
    one, half_range = np.float32(1), np.float32(127.5)
    raised = (levels.numpy().astype(np.float32) / half_range - one + np.float32(1 / 255) + one) * half_range
    halves = np.floor(raised[raised % 1 == 0.5])
    assert len(set(halves % 2)) == 2  # below an odd level and below an even one
    assert np.array_equal(got, np.rint(raised).astype(np.uint8))


def test_frames_compute_in_the_dtype_of_the_network_and_clip():
    seen = []

    class Probe(Affine):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            seen.append((x_NCHW.dtype, x_NCHW.is_contiguous(), x_NCHW.min().item(), x_NCHW.max().item()))
            return super().forward(x_NCHW)

    levels = torch.tensor([0, 100, 155, 255], dtype=torch.uint8).view(1, 2, 2, 1).repeat(1, 1, 1, 3)
    got = Frames(Probe(3.0, 0.0).half().eval())(levels)
    assert seen == [(torch.float16, True, -1.0, 1.0)]
    assert got[0, :, :, 0].flatten().tolist() == [0, 45, 210, 255]  # 127.5 + 3 * (k - 127.5), clipped
