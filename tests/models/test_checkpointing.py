"""Layers that are computed twice give the same gradients, in less memory."""

import pytest
import torch
from torch import nn

from p2p.models.init import initialize
from p2p.models.local_enhancer import LocalEnhancer
from p2p.models.resnet import ResNet

NETWORKS = {
    "global": lambda **options: ResNet(
        image_size=32, width=4, blocks=3, downsamplings=3, norm="instance", dropout=0.0, **options
    ),
    "local_enhancer": lambda **options: LocalEnhancer(image_size=32, width=4, blocks=3, downsamplings=2, **options),
}


def trained(network, x):
    """Output and gradients, and the bytes that the forward pass leaves allocated."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        output = network(x)
    kept = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    output.square().mean().backward()
    return output.detach(), [parameter.grad for parameter in network.parameters()], kept


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_in_less_memory(name):
    torch.manual_seed(0)
    plain = NETWORKS[name]()
    initialize(plain, gain=0.3)
    frugal = NETWORKS[name](checkpointing=True)
    frugal.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 32, 48)
    (output, gradients, kept), (again, others, less) = trained(plain, x), trained(frugal, x)
    assert torch.equal(output, again)
    assert all(map(torch.equal, gradients, others))
    assert 0 < less < 0.5 * kept
    frugal.eval()
    with torch.no_grad():
        assert torch.equal(frugal(x), output)


def test_what_would_train_differently_is_refused():
    with pytest.raises(ValueError, match=r"norm=batch would average each batch twice: use generator\.norm=instance"):
        ResNet(norm="batch", checkpointing=True)
    with pytest.raises(ValueError, match=r"dropout would differ: use generator\.dropout=0"):
        ResNet(norm="instance", checkpointing=True)
    with pytest.raises(ValueError, match=r"norm=batch would"):
        LocalEnhancer(norm="batch", checkpointing=True)


def test_layers_of_a_network_stay_its_own():
    """Segments are made at each call, so that no name in a checkpoint changes."""
    network = NETWORKS["global"](checkpointing=True)
    before = list(network.state_dict())
    network(torch.rand(1, 3, 32, 32)).mean().backward()
    assert list(network.state_dict()) == before
    assert isinstance(network, nn.Sequential)
