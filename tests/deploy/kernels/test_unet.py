"""The kernels' arithmetic, by Triton's interpreter on the CPU; tests/gpu/test_triton.py runs them for real."""

from dataclasses import astuple

import pytest
import torch
from torch import nn

from p2p.deploy.backends import triton
from p2p.deploy.manifest import Program
from p2p.deploy.rewrite import Frames, fold_batch_norm
from p2p.deploy.signature import Signature
from p2p.models.inference_view import inference_view
from p2p.models.local_enhancer import LocalEnhancer
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet

pytest.importorskip("triton")  # which comes with PyTorch on Linux alone
if torch.cuda.is_available():
    pytest.skip("Triton compiles where there is a GPU", allow_module_level=True)

from p2p.deploy.kernels.tiles import Tile, candidates
from p2p.deploy.kernels.unet import UNetKernels
from p2p.deploy.kernels.weights import pack_down, pack_up, weights_of

CPU = torch.device("cpu")


def view(norm_stats, **options):
    torch.manual_seed(0)
    network = UNet(image_size=32, depth=4, width=16, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return fold_batch_norm(inference_view(network, norm_stats=norm_stats))


def tile(rows, columns, depth, *, splits=1):
    """One that fits the product."""
    return Tile(64, 16 if columns <= 16 else 64, min(depth, 64), 2, 4, splits)


WITHOUT_BATCH_NORM = {"instance norm": {"norm": "instance"}, "no norm": {"norm": "none"}}
KINDS = {"unet": {}, "no skips": {"skips": False}, "channels": {"in_channels": 1, "out_channels": 4}}


@pytest.mark.parametrize(
    ("kind", "norm_stats"),
    [*((kind, stats) for kind in KINDS for stats in ("running", "instance"))]
    + [(kind, "running") for kind in WITHOUT_BATCH_NORM],  # of which there are no statistics to choose
)
@torch.inference_mode()
def test_the_kernels_compute_the_network(kind, norm_stats):
    options = (KINDS | WITHOUT_BATCH_NORM)[kind]
    network = view(norm_stats, **options)
    height, width = 32, 16  # not square: rows and columns must not be confused
    images = torch.rand(2, options.get("in_channels", 3), height, width) * 2 - 1
    weights = weights_of(network, dtype=torch.float32)
    run = UNetKernels(weights, batch=2, height=height, width=width, device=CPU)
    # Some with their terms in one piece, some in two.
    run.tune([tile(*product, splits=1 + index % 2) for index, product in enumerate(run.products)])
    expected = network(images)
    assert (run(images) - expected).abs().max() < 1e-5
    # What one call leaves in the buffers must not disturb the next.
    assert (run(images.flip(0)) - expected.flip(0)).abs().max() < 1e-5


@torch.inference_mode()
def test_a_program_of_frames_converts_them_around_the_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(triton, "Captured", lambda program, *, device, dtype: program)
    network, frames = view("running"), torch.randint(0, 256, (2, 32, 16, 3), dtype=torch.uint8)
    weights = weights_of(network, dtype=torch.float32)
    products = UNetKernels(weights, batch=2, height=32, width=16, device=CPU).products
    record = {
        "takes": Signature(1, 2, (32, 16, 3), "uint8").to_text(),
        "skips": True,
        "down": [vars(layer) for layer in weights.down],
        "up": [vars(layer) for layer in weights.up],
        "tiles": {2: [astuple(tile(*product)) for product in products]},
    }
    torch.save(record, tmp_path / "generator.pt")
    program = Program("triton", "generator.pt", "uint8", 2, {})
    run, expected = triton.load(program, tmp_path, device=CPU), Frames(network)(frames)
    difference = (run(frames).int() - expected.int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 1e-3
    with pytest.raises(ValueError, match="takes batches of 1 to 2 images of 32x16x3 in uint8, not 2 of 3x32x16 in"):
        run(torch.zeros(2, 3, 32, 16))


@pytest.mark.parametrize("transposed", [False, True], ids=["down", "up"])
def test_packed_weights_are_the_same_weights_in_another_order(transposed):
    weight = torch.arange(5 * 7 * 16.0).reshape(5, 7, 4, 4)
    packed = (pack_up if transposed else pack_down)(weight)
    assert packed.shape == ((28, 20) if transposed else (5, 112))
    assert torch.equal(packed.flatten().sort().values, weight.flatten())


def test_what_the_kernels_do_not_compute_is_refused():
    for network in (ResNet(blocks=1, width=8), LocalEnhancer(width=1, downsamplings=1, blocks=1)):
        with pytest.raises(ValueError, match="compute only U-Nets"):
            weights_of(network.eval(), dtype=torch.float16)
    with pytest.raises(ValueError, match=r"channels in multiples of 16, and generator\.width gives 8"):
        weights_of(UNet(image_size=32, width=8, norm="none").eval(), dtype=torch.float16)
    with pytest.raises(ValueError, match="each BatchNorm folded"):
        weights_of(UNet(image_size=32, width=16).eval(), dtype=torch.float16)


@pytest.mark.parametrize("rows, columns, depth", [(135200, 128, 256), (128, 2048, 512), (532512, 16, 128), (9, 64, 48)])
def test_every_candidate_fits_the_product(rows, columns, depth):
    tiles = candidates(rows, columns, depth)
    assert tiles and len(set(tiles)) == len(tiles)
    for tile in tiles:
        assert depth % tile.depth == 0  # a tile's depth lies within one tap
        assert 4 * depth // tile.depth % tile.splits == 0
        assert tile.depth & (tile.depth - 1) == 0 and tile.depth >= 16  # as Triton's ranges and TMA's 16 bytes ask for
