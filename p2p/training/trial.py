"""Call the user's own parts once before training, so that a mistake in them becomes one sentence."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn
from torchmetrics import Metric

from p2p.batch import Batch
from p2p.losses.adversarial import Adversarial
from p2p.losses.feature_matching import FeatureMatching
from p2p.losses.loss import Loss
from p2p.losses.scales import over_scales


def try_parts(
    batch: Batch,
    output_NCHW: torch.Tensor,
    *,
    count: int,
    losses: Mapping[str, Loss | FeatureMatching],
    metrics: Mapping[str, Metric],
    adversarial: Adversarial | None,
    discriminator: nn.Module | None,
) -> None:
    """Call losses, metrics, discriminator and game as training and validation will. It leaves no trace.

    Args:
        batch: of validation.
        output_NCHW: the generator's output for it.
        count: images of a training batch, of which validation may take more than there is memory for gradients.

    Raises:
        ValueError: one of them cannot be called, or does not give what it should.
    """
    input_NCHW, target_NCHW, output_NCHW = batch.input_NCHW[:count], batch.target_NCHW[:count], output_NCHW[:count]
    with as_before():
        with torch.autocast(output_NCHW.device.type, enabled=False):
            for name, metric in metrics.items():
                metric = metric.clone()
                metric.sync_on_compute = False
                _call(f"metrics.{name}", "update(outputs, targets)", metric.update, output_NCHW, target_NCHW)
                try:
                    score = metric.compute()
                except Exception:  # some need more than one batch
                    continue
                _check_scalar(f"metrics.{name}", score)
        with torch.enable_grad():
            fake_NCHW = output_NCHW.detach().requires_grad_()
            for name, loss in losses.items():
                if isinstance(loss, FeatureMatching):
                    continue  # its discriminator is called below
                images = fake_NCHW, target_NCHW, input_NCHW
                value = _call(f"losses.{name}", "(output, target, input)", _copied(loss), *images)
                _check_scalar(f"losses.{name}", value)
        if adversarial is None or discriminator is None:
            return
        with torch.no_grad():
            judge = copy.deepcopy(discriminator).eval()  # BatchNorm of this one keeps its averages
            logits = _call("discriminator", "(input, image)", judge, input_NCHW, target_NCHW)
            scales = logits if isinstance(logits, (list, tuple)) else [logits]
            if not scales or not all(isinstance(each, torch.Tensor) for each in scales):
                raise ValueError(f"discriminator gives a {type(logits).__name__}: it has to give a tensor of logits")
            if any(isinstance(loss, FeatureMatching) for loss in losses.values()):
                seen = "(input, image, activations=True)", partial(judge, activations=True), input_NCHW, target_NCHW
                _call("discriminator", *seen)
            for part, given in {"discriminator_loss": (logits,) * 2, "generator_loss": (logits,)}.items():
                names = ", ".join(["real_logits", "fake_logits"][-len(given) :])
                loss_of = getattr(adversarial, part)
                value = _call(f"adversarial.{part}", f"({names})", partial(over_scales, loss_of), *given)
                _check_scalar(f"adversarial.{part}", value)


@contextmanager
def as_before() -> Iterator[None]:
    """Leave the random generators of Python, NumPy and torch as they were."""
    drawn, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(drawn)
            np.random.set_state(numbers)


def _call(name: str, arguments: str, function: Callable, *given: object) -> object:
    try:
        return function(*given)
    except Exception as error:  # of whatever the user has written
        if isinstance(error, ValueError) and type(getattr(function, "func", function)).__module__.startswith("p2p."):
            raise  # a part of ours says by itself what is wrong
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"{name} fails when it is called as {arguments}: {type(error).__name__}: {reason};"
            " HYDRA_FULL_ERROR=1 shows where"
        ) from error


def _copied(loss: Loss) -> Loss:
    """One that may count its calls, say."""
    try:
        return copy.deepcopy(loss)
    except Exception:  # of what cannot be copied, such as a session of another library
        return loss


def _check_scalar(name: str, value: object) -> None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
    raise ValueError(
        f"{name} gives a {type(value).__name__}{shape}: it has to give a tensor of one number, such as a mean()"
    )
