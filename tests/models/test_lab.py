"""CIE Lab against the standards' formulas in float64, and against scikit-image."""

import numpy as np
import pytest
import torch

from p2p.deploy.accuracy import psnr_db
from p2p.deploy.graph import load
from p2p.deploy.kernels.weights import weights_of
from p2p.deploy.torch_export import trace, write
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.lab import LabUNet, coloured, grey_of, lightness

# RGB in 8 bits and its L, a and b by scikit-image 0.26, `skimage.color.rgb2lab` (D65, 2 degrees).
SKIMAGE = {
    (255, 0, 0): (53.2406, 80.0923, 67.2028),
    (0, 255, 0): (87.7351, -86.1830, 83.1797),
    (0, 0, 255): (32.2957, 79.1856, -107.8573),
    (255, 255, 255): (100.0, -0.0025, 0.0047),
    (128, 128, 128): (53.5850, -0.0015, 0.0028),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (12, 3, 7): (1.4330, 2.9391, -0.6740),
    (200, 120, 40): (57.9123, 25.2952, 54.0828),
}


def lab_of(levels_NC):
    """uint8 RGB -> L, a and b in float64: IEC 61966-2-1, then CIE 15, with the matrix that the primaries give."""
    shares = levels_NC / 255.0
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    primaries = np.array([[0.64, 0.33, 0.03], [0.30, 0.60, 0.10], [0.15, 0.06, 0.79]])
    white = np.array([0.3127, 0.3290, 0.3583]) / 0.3290
    to_xyz = (primaries * np.linalg.solve(primaries.T, white)[:, None]).T
    f = np.vectorize(lambda share: share ** (1 / 3) if share > (6 / 29) ** 3 else (841 / 108) * share + 4 / 29)
    x, y, z = f((linear @ to_xyz.T) / white).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def pixels(values):
    """(N, C) -> float32 (N, C, 1, 1)."""
    return torch.tensor(np.asarray(values), dtype=torch.float32)[:, :, None, None]


def test_colours_there_and_back():
    generator = np.random.default_rng(0)
    levels = np.concatenate([[*SKIMAGE], generator.integers(0, 256, (500, 3)), generator.integers(0, 20, (100, 3))])
    expected = lab_of(levels)
    rgb = pixels(levels / 127.5 - 1)
    grey = grey_of(rgb)
    found = (lightness(grey)[:, 0, 0, 0].double().numpy() + 1) * 50
    np.testing.assert_allclose(found, expected[:, 0], atol=0.01)
    back = coloured(grey, pixels(expected[:, 1:] / 110))
    assert ((back - rgb) * 127.5).abs().max() < 0.3


def test_against_scikit_image():
    for rgb, lab in SKIMAGE.items():
        grey = grey_of(pixels([rgb]) / 127.5 - 1)
        assert lightness(grey).item() * 50 + 50 == pytest.approx(lab[0], abs=0.01)
        back = coloured(grey, pixels([lab[1:]]) / 110)
        assert back[0, :, 0, 0].numpy() * 127.5 + 127.5 == pytest.approx(np.array(rgb), abs=0.3)


def test_grey_stays_the_same_grey():
    grey = torch.arange(256.0).reshape(1, 1, 16, 16) / 127.5 - 1
    assert (coloured(grey, torch.zeros(1, 2, 16, 16)) - grey).abs().max() < 1e-5
    assert (grey_of(grey.expand(1, 3, 16, 16)) - grey).abs().max() < 1e-5


def test_gradients_are_finite_and_say_the_way_back_into_srgb():
    grey = torch.tensor([-1.0, -0.99, 0.0, 0.99, 1.0]).reshape(5, 1, 1, 1)
    for corner in ((0.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)):
        ab = pixels([corner] * 5).requires_grad_()
        (coloured(grey, ab) - grey).abs().sum().backward()
        assert ab.grad.isfinite().all()
        if any(corner):  # towards grey
            assert ((ab.grad * ab.detach()).sum(dim=1) > 0).all()


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = LabUNet(image_size=16, depth=3, width=4, norm="instance", dropout=0.0)
    initialize(network, gain=0.3)
    return network


def test_the_output_keeps_the_lightness_and_is_clipped_only_in_use(network):
    grey = torch.rand(2, 1, 16, 16) * 2 - 1
    raw = network(grey).detach()
    assert raw.shape == (2, 3, 16, 16) and raw.abs().max() > 1
    used = network.eval()(grey).detach()
    assert torch.equal(used, raw.clamp(-1, 1))
    inside = (raw.abs() <= 1).all(dim=1, keepdim=True)
    assert inside.sum() > 20
    assert (grey_of(used) - grey)[inside].abs().max() < 2e-3


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"not 3 into 3: use data\.input_channels=1 data\.target_channels=3"):
        LabUNet(in_channels=3)


def test_a_program_of_half_precision_converts_in_float32(network, tmp_path):
    view = inference_view(network, norm_stats="instance")
    grey = (torch.arange(2 * 256.0).reshape(2, 1, 16, 16) % 256) / 127.5 - 1
    graph = trace(view, grey, dtype=torch.float16, min_batch=1, max_batch=4, rewrites=("last", "blocks"))
    powers = [node for node in graph.graph.nodes if node.target == torch.ops.aten.pow.Tensor_Scalar]
    assert powers and all(node.meta["val"].dtype == torch.float32 for node in powers)
    write(graph, tmp_path / "generator.pt2")
    run, _ = load(tmp_path / "generator.pt2", device=torch.device("cpu"))
    with torch.no_grad():
        assert psnr_db(run(grey.half()), view(grey)).min() > 45


def test_the_kernels_of_a_plain_unet_do_not_compute_it(network):
    with pytest.raises(ValueError, match="compute only U-Nets"):
        weights_of(network.eval(), dtype=torch.float16)
