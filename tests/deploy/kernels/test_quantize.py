"""8-bit layers by Triton's interpreter, against a float64 network whose values are rounded where theirs are.

Of fp8 the interpreter rounds otherwise than a GPU: tests/gpu/test_triton.py has it.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.deploy.kernels.test_unet import CPU, view

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("Triton compiles where there is a GPU", allow_module_level=True)

from p2p.deploy.kernels.quantize import LARGEST, calibrate, quantize
from p2p.deploy.kernels.tiles import Tile
from p2p.deploy.kernels.unet import UNetKernels
from p2p.deploy.kernels.weights import pack_down, pack_up, weights_of

pytestmark = pytest.mark.slow


def nearest(values, scale, dtype):
    """Rounded to scale times a number of that dtype."""
    return (values / scale).clamp(-LARGEST[dtype], LARGEST[dtype]).round() * scale


def unpacked(layer, like, pack):
    """The packed weights of a layer, scaled, in the order of PyTorch's."""
    order = pack(torch.arange(like.numel(), dtype=torch.float64).reshape(like.shape)).long()
    weight = layer.weight.double() * (1 if layer.scale is None else layer.scale.double()[:, None])
    flat = torch.empty(like.numel(), dtype=torch.float64)
    flat[order[: len(weight)].flatten()] = weight.flatten()[: order.numel()]
    return flat.reshape(like.shape)


def parts_of(block):
    """Its convolution's weight, and its norm or nothing."""
    [convolution] = [each for each in block if isinstance(each, (nn.Conv2d, nn.ConvTranspose2d))]
    return convolution.weight, nn.Sequential(*[each for each in block if isinstance(each, nn.InstanceNorm2d)])


def reference(network, quantized, ranges, images, dtype):
    """The same, image by image: activations and norms in float64, rounded before each 8-bit convolution."""
    largest = LARGEST[dtype]
    cells, skips, ups = ([value / largest for value in each] for each in (ranges.cells, ranges.skips, ranges.ups))
    x, encoded = images.double(), []
    for level, (block, layer) in enumerate(zip(network.down, quantized.down, strict=True)):
        if level:  # rounded to 8-bit numbers; their scale is in the weights
            x = nearest(F.leaky_relu(x, 0.2), cells[level - 1], dtype) / cells[level - 1]
        like, norm = parts_of(block)
        weight = unpacked(layer, like, pack_down) if level else layer.weight.double()
        x = norm(F.conv2d(x, weight, layer.bias.double(), 2, 1))
        encoded.append(x)
    for index, (block, layer) in enumerate(zip(network.up, quantized.up, strict=True)):
        level = len(encoded) - 1 - index
        parts = [(encoded[level], skips[level])] if index == 0 or quantized.skips else []
        parts += [(x, ups[index - 1])] if index else []
        relus = [F.relu(part) if level == 0 else nearest(F.relu(part), scale, dtype) / scale for part, scale in parts]
        like, norm = parts_of(block)
        x = norm(F.conv_transpose2d(torch.cat(relus, 1), unpacked(layer, like, pack_up), layer.bias.double(), 2, 1))
    return torch.tanh(x)


@pytest.mark.parametrize(
    ("dtype", "norm_stats", "options"),
    [
        (torch.int8, "running", {}),
        (torch.int8, "instance", {}),
        (torch.int8, "instance", {"skips": False}),
    ],
    ids=["int8", "int8 instance", "int8 no skips"],
)
@torch.inference_mode()
def test_the_kernels_round_where_they_should_and_nowhere_else(dtype, norm_stats, options):
    network = view(norm_stats, **options)
    torch.manual_seed(1)
    images = F.interpolate(torch.rand(2, 3, 4, 4) * 2 - 1, size=(64, 32), mode="bicubic").clamp(-1, 1)
    ranges = calibrate(network, images)
    quantized = quantize(weights_of(network, dtype=torch.float32), ranges, dtype=dtype, rest=torch.float32)
    assert {layer.weight.dtype for layer in quantized.down[1:] + quantized.up[:-1]} == {dtype}
    run = UNetKernels(quantized, batch=2, height=64, width=32, device=CPU)
    columns = [columns for _, columns, _ in run.products]
    run.tune([Tile(64, 16 if count <= 16 else 64, 16, 2, 4, 1 + index % 2) for index, count in enumerate(columns)])
    expected = reference(network.double(), quantized, ranges, images, dtype)
    network.float()
    error = (run(images).double() - expected).abs()
    # A value between two 8-bit numbers falls either way, by float32's error in the sum before it; few do.
    assert error.quantile(0.75) < 1e-6
    rounding = (network(images).double() - expected).abs()
    assert 1e-4 < rounding.mean() < 0.1
