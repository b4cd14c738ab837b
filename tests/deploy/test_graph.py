"""`p2p.deploy.graph` against torch.export's own loading of the same file, bit by bit."""

import pytest
import torch

from p2p.deploy import graph
from p2p.deploy.rewrite.frames import Frames
from p2p.deploy.torch_export import trace, write
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet

CPU = torch.device("cpu")


class Sides(torch.nn.Module):
    """What the networks have not: shapes, several outputs, lists, tensors that may be absent, constants."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.linspace(0.5, 2, 3)[:, None, None], persistent=False)

    def forward(self, images):
        count, channels = images.shape[:2]
        flat = images.view(count * channels, 1, *images.shape[2:])
        first, *others = flat.view_as(images).split(1, dim=1)
        low, high = images.aminmax(dim=3, keepdim=True)
        picked = (
            images[:, [2, 0, 1]] + torch.full((), 0.25) * torch.arange(3, device=images.device)[None, :, None, None]
        )
        return torch.cat([*others, first], dim=1) * self.scale + low * high + picked.to(torch.float64).float()


def both(network, example, path, **options):
    options = {"dtype": torch.float32, "min_batch": 1, "max_batch": None, "rewrites": ()} | options
    write(trace(network.eval(), example, **options), path)
    run, signature = graph.load(path, device=CPU)
    return run, signature, torch.export.load(path).module()


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (UNet(image_size=32, width=4), {"rewrites": ("last",)}),
        (ResNet(width=4, blocks=1), {"min_batch": 2, "max_batch": 2}),
        (Sides(), {}),
    ],
)
def test_it_is_the_module_that_was_saved(network, options, tmp_path):
    example = torch.rand(2, 3, 32, 32) * 2 - 1
    run, signature, module = both(network, example, tmp_path / "one.pt2", **options)
    least, most = options.get("min_batch", 1), options.get("max_batch")
    assert (signature.min_batch, signature.max_batch, signature.image) == (least, most, (3, 32, 32))
    assert signature.dtype == "float32"
    for count in (2,) if most else (1, 2, 5):
        images = torch.rand(count, 3, 32, 32) * 2 - 1
        with torch.inference_mode():
            assert torch.equal(run(images), module(images))


def test_frames_in_another_precision(tmp_path):
    frames = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    network = Frames(UNet(image_size=32, width=4).eval())
    run, signature, module = both(network, frames, tmp_path / "one.pt2", dtype=torch.bfloat16, max_batch=3)
    assert (signature.max_batch, signature.image, signature.dtype) == (3, (32, 32, 3), "uint8")
    with torch.inference_mode():
        assert torch.equal(run(frames), module(frames))


def test_memory_is_free_again_when_nothing_needs_it(tmp_path):
    """All that is held at the last operator is its inputs."""
    run, _, _ = both(torch.nn.Sequential(*[torch.nn.ReLU()] * 5), torch.rand(1, 3, 4, 4), tmp_path / "one.pt2")
    [steps] = [cell.cell_contents for cell in run.__closure__ if isinstance(cell.cell_contents, list)]
    assert [len(step.last_used) for step in steps] == [1] * 5
