import math
from itertools import pairwise

import pytest
import torch
from hydra.utils import instantiate

from p2p.training.schedules import cosine, linear
from tests.test_configs import compose_command


def rates(epochs, schedule=linear, beyond=0, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, epochs=epochs, **options)
    result = []
    for _ in range(epochs + beyond):
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


def test_the_schedule_of_the_reference_since_july_2020():
    """It steps before each epoch: written out as its train.py does it, with epoch_count 1 and its counter."""
    cfg = compose_command("train", ["scheduler=linear_2020", "epochs=200"])
    made = instantiate(cfg.scheduler)
    # Its counter is 1 in the first epoch, after update_learning_rate() at the start.
    expected = [1.0 - max(0, counter + 1 - 100) / float(100 + 1) for counter in range(1, 201)]
    assert rates(200, lambda optimizer, epochs: made(optimizer)) == expected
    assert expected[99] < 1 == rates(200)[99]


def test_fractions():
    assert rates(4, decay_fraction=0.0) == [1, 1, 1, 1]
    assert rates(3, decay_fraction=1.0) == [0.75, 0.5, 0.25]
    with pytest.raises(ValueError, match=r"scheduler\.decay_fraction=2"):
        rates(3, decay_fraction=2)


@pytest.mark.parametrize(
    "chosen", [{"constant_epochs": 5}, {"decay_epochs": 2}, {"constant_epochs": 5, "decay_epochs": 2}]
)
def test_numbers_of_epochs(chosen):
    assert rates(7, **chosen) == [1, 1, 1, 1, 1, 1 - 1 / 3, 1 - 2 / 3]


@pytest.mark.parametrize("n", [{"constant_epochs": 5, "decay_epochs": 3}, {"constant_epochs": 8}, {"decay_epochs": 8}])
def test_numbers_that_do_not_add_up(n):
    with pytest.raises(ValueError, match="do not divide epochs=7"):
        rates(7, **n)


def test_cosine_ends_at_zero_and_stays_there():
    factors = rates(20, cosine, beyond=5)
    torchs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, T_max=20)
    for factor in factors[:20]:
        assert factor == pytest.approx(torchs.param_groups[0]["lr"], abs=1e-12)
        torchs.step()
        scheduler.step()
    assert factors[0] == 1
    assert factors[10] == pytest.approx(0.5)
    assert factors[20:] == [0.0] * 5
    assert all(a > b for a, b in pairwise(factors[:21]))


@pytest.mark.parametrize(
    ("option", "factor"),
    [
        ("constant", lambda epoch: 1.0),
        ("step", lambda epoch: 0.1 ** (epoch // 50)),
        ("cosine", lambda epoch: (1 + math.cos(math.pi * epoch / 120)) / 2),
        ("linear", lambda epoch: 1 - max(0, epoch + 1 - 60) / 61),
    ],
)
def test_the_configured_schedules(option, factor):
    schedule = instantiate(compose_command("train", [f"scheduler={option}", "epochs=120"]).scheduler, _convert_="all")
    factors = rates(120, lambda optimizer, epochs: schedule(optimizer))
    assert factors == pytest.approx([factor(epoch) for epoch in range(120)], abs=1e-12)
