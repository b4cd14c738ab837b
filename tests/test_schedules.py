import pytest
import torch

from p2p.schedules import linear


def rates(epochs, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = linear(optimizer, epochs=epochs, **options)
    result = []
    for _ in range(epochs):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


def test_the_papers_schedule():
    """100 epochs constant, then the reference's 1 - max(0, epoch + 1 - 100) / 101, written out with its epoch count."""
    factors = rates(200)
    assert factors[:100] == [1.0 - max(0, epoch + 1 - 100) / 101 for epoch in range(100)]
    assert factors[99] == 1.0
    assert factors[100] == pytest.approx(1 - 1 / 101, abs=0)
    assert factors[199] == pytest.approx(1 - 100 / 101, abs=1e-15)


def test_fractions():
    assert rates(4, decay_fraction=0.0) == [1, 1, 1, 1]
    assert rates(3, decay_fraction=1.0) == [0.75, 0.5, 0.25]
    with pytest.raises(ValueError, match=r"scheduler\.decay_fraction=2"):
        rates(3, decay_fraction=2)
