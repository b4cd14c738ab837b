import pytest
import torch
from torch import nn

from p2p.models.inference_view import inference_view, resolve_norm_stats
from p2p.models.init import initialize
from p2p.models.unet import UNet


@pytest.fixture
def unet():
    torch.manual_seed(0)
    network = UNet(image_size=32, width=4, dropout=0.0)
    initialize(network, gain=0.3)
    network.train()(torch.randn(4, 3, 32, 32) * 2)  # running averages far from their start
    return network


def test_instance_is_batch_norm_in_training_mode_at_batch_1(unet):
    images = torch.randn(8, 3, 32, 32)
    view = inference_view(unet, norm_stats="instance")
    together = view(images)
    alone = torch.cat([view(image[None]) for image in images])
    expected = torch.cat([unet.train()(image[None]) for image in images]).detach()
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)


def test_running_is_batch_norm_in_eval_mode(unet):
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(inference_view(unet, norm_stats="running")(images), unet.eval()(images))


def test_dropout_is_off_in_a_view():
    view = inference_view(UNet(image_size=64, width=4, dropout=0.5).train(), norm_stats="instance")
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(view(images), view(images))


@pytest.mark.parametrize("norm_stats", ["instance", "running"])
def test_a_view_shares_weights_and_leaves_the_network_alone(unet, norm_stats):
    view = inference_view(unet.train(), norm_stats=norm_stats)
    assert unet.training
    assert any(isinstance(module, nn.BatchNorm2d) for module in unet.modules())
    assert {id(p) for p in view.parameters()} == {id(p) for p in unet.parameters()}
    images = torch.randn(1, 3, 32, 32)
    before = view(images)
    with torch.no_grad():
        unet.up[-1][1].bias += 0.5
    assert not torch.allclose(view(images), before)


def test_auto():
    assert resolve_norm_stats("auto", batch_size=1) == "instance"
    assert resolve_norm_stats("auto", batch_size=2) == "running"
    assert resolve_norm_stats("running", batch_size=1) == "running"
    with pytest.raises(ValueError, match="norm_stats=batch"):
        resolve_norm_stats("batch", batch_size=1)
