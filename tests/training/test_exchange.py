"""What goes into the messages; that the means are right: tests/test_ddp.py."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from p2p.training import exchange
from p2p.training.exchange import as_it_lies, averaging


def test_memory_is_taken_as_it_lies():
    weight = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    view = as_it_lies(weight)
    assert view.data_ptr() == weight.data_ptr() and view.tolist() == weight.permute(0, 2, 3, 1).flatten().tolist()


@pytest.fixture
def messages(monkeypatch):
    """Their lengths. All gradients of the only other process are zero."""
    lengths, waited = [], []

    def start(flat):
        lengths.append(flat.numel())
        flat.div_(2)
        return SimpleNamespace(wait=lambda: waited.append(flat))

    monkeypatch.setattr(exchange, "start_average", start)
    yield lengths
    assert len(waited) == len(lengths)


def network_of(layers):
    network = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(layers)))  # 148 parameters each
    return network.to(memory_format=torch.channels_last)


def test_each_gradient_is_in_one_message_and_keeps_its_layout(messages, monkeypatch):
    monkeypatch.setattr(exchange, "MESSAGE_BYTES", 4 * 148)
    network, images = network_of(5), torch.rand(2, 4, 8, 8)
    expected = torch.autograd.grad(network(images).square().sum(), [*network.parameters()])
    with averaging(network):
        network(images).square().sum().backward()
        assert len(messages) >= 4  # before its end
    assert sum(messages) == 5 * 148 and max(messages) < 2 * 148 + 4
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 2)
        assert parameter.grad.stride() == gradient.stride()


def test_a_gradient_that_was_added_up_is_averaged_once_and_the_network_is_let_go(messages):
    network, images = network_of(1), torch.rand(2, 4, 8, 8)
    (expected,) = torch.autograd.grad(network(images).sum(), [network[0].weight])
    network(images).sum().backward()
    with averaging(network):
        network(images).sum().backward()
    torch.testing.assert_close(network[0].weight.grad, 2 * expected / 2)
    network(images).sum().backward()  # of which nobody else hears
    assert messages == [148]
    torch.testing.assert_close(network[0].weight.grad, 2 * expected)


def test_a_backward_that_fails_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(exchange, "start_average", lambda flat: pytest.fail("a message"))
    network = network_of(1)
    with pytest.raises(RuntimeError, match="lost"), averaging(network):
        network(torch.rand(2, 4, 8, 8)).sum().backward()
        raise RuntimeError("lost")
    network(torch.rand(2, 4, 8, 8)).sum().backward()


@pytest.mark.parametrize(("mine", "others", "answer"), [(False, 0.0, False), (True, 0.0, True), (False, 1.0, True)])
def test_one_process_that_says_yes_is_enough(mine, others, answer, monkeypatch):
    def all_reduce(tensor, op):
        assert op == torch.distributed.ReduceOp.MAX
        tensor.clamp_(min=others)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    assert exchange.ask(mine, torch.device("cpu"))() is answer
