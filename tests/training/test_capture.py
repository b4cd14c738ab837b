"""When a step is captured, and what becomes of it around the graph; the graph itself is in tests/gpu."""

from functools import partial

import lightning
import pytest
import torch
from torch import nn

from p2p.batch import Batch
from p2p.losses.adversarial import WassersteinGP
from p2p.training import capture
from p2p.training.capture import CapturedStep, capture_if_possible
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def graphs(monkeypatch):
    """Programs that are called again in place of graphs; returns how often was recorded and replayed."""
    seen = {"warm": 0, "recorded": 0, "replayed": 0}

    def warm_up(program, stream):
        seen["warm"] += 1
        return program()

    def record(program, stream):
        seen["recorded"] += 1

        def replay():
            seen["replayed"] += 1
            return program()

        return replay

    monkeypatch.setattr(capture, "warm_up", warm_up)
    monkeypatch.setattr(capture, "record", record)
    return seen


def fused_adam(parameters, **options):
    return torch.optim.Adam(parameters, **{"lr": 1e-3, "fused": True} | options)


def decide(**options):
    parameters = [nn.Parameter(torch.zeros(1))]
    arguments = {"wanted": "auto", "device": GPU, "by_hooks": False, "accumulate": 1}
    arguments["optimizers"] = [fused_adam(parameters)]
    return capture_if_possible(lambda batch: {}, **arguments | options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"by_hooks": True}, "DistributedDataParallel exchanges the gradients"),
        ({"accumulate": 4}, "a step takes model.accumulate=4 batches"),
        ({"optimizers": [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)]}, "the optimizer is SGD and must be"),
        (
            {"optimizers": [torch.optim.Adam([nn.Parameter(torch.zeros(1))])]},
            "the optimizer is Adam and must be Adam",
        ),
    ],
)
def test_what_cannot_be_captured_says_why(options, reason, capsys):
    assert decide(**options) is None
    out = capsys.readouterr().out
    assert out.startswith(f"steps are not captured as a CUDA graph, because {reason}") and out.count("\n") == 1
    with pytest.raises(
        ValueError, match=rf"model\.capture=true is not possible, because {reason}.*: use model\.capture=auto"
    ):
        decide(wanted=True, **options)
    assert decide(wanted=False, **options) is None
    assert capsys.readouterr().out == ""


def test_on_a_cpu_auto_says_nothing(capsys):
    assert decide(device=CPU) is None
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"because the training does not run on an NVIDIA GPU"):
        decide(device=CPU, wanted=True)


def test_the_first_shape_is_recorded_after_three_steps_and_the_learning_rate_reaches_the_graph(graphs, capsys):
    weight = nn.Parameter(torch.zeros(()))
    optimizer = fused_adam([weight], lr=0.5, betas=(0.0, 0.0))  # a step of lr against the gradient's sign
    seen = []

    def step(batch):
        seen.append((batch.input_NCHW, optimizer.param_groups[0]["lr"]))
        weight.grad = torch.ones(())
        optimizer.step()
        return {"a": batch.input_NCHW.mean(), "b": batch.target_NCHW.mean()}

    captured = CapturedStep(step, optimizers=[optimizer], device=CPU)
    for number in range(6):
        batch = Batch(["x"] * 2, torch.full((2, 3, 4, 4), float(number)), torch.full((2, 3, 4, 4), -float(number)))
        losses = captured(batch)
        assert losses == {"a": number, "b": -number}
        assert captured.recorded == (number >= 3)
    assert graphs == {"warm": 3, "recorded": 1, "replayed": 3}
    assert len({image.data_ptr() for image, _ in seen}) == 1  # one buffer for all
    assert weight.item() == pytest.approx(-3.0)
    assert optimizer.param_groups[0]["lr"] == 0.5 and optimizer.param_groups[0]["capturable"] is False

    kept = captured(batch)
    optimizer.param_groups[0]["lr"] = 0.125  # what a scheduler does
    captured(batch)
    assert captured._rates[0].item() == 0.125
    assert kept["a"].item() == 5.0  # not overwritten by the next replay

    captured(Batch(["x"], torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))  # an epoch's last, not full
    assert capsys.readouterr().out == ""
    for _ in range(2):
        captured(Batch(["x"] * 2, torch.zeros(2, 3, 8, 4), torch.zeros(2, 3, 8, 4)))
    assert capsys.readouterr().out.count("images of several sizes: only steps of the first size are replayed") == 1
    assert graphs["recorded"] == 1 and graphs["replayed"] == 5


def test_a_rate_that_changes_before_the_recording_is_the_one_that_is_recorded(graphs):
    weight = nn.Parameter(torch.zeros(()))
    optimizer = fused_adam([weight], lr=0.5, betas=(0.0, 0.0))

    def step(batch):
        weight.grad = torch.ones(())
        optimizer.step()
        return {"a": batch.input_NCHW.mean()}

    captured = CapturedStep(step, optimizers=[optimizer], device=CPU)
    for rate in (0.5, 0.25, 0.25, 0.125, 0.125):
        optimizer.param_groups[0]["lr"] = rate
        captured(Batch(["x"], torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))
        assert optimizer.param_groups[0]["lr"] == rate
    assert captured.recorded and weight.item() == pytest.approx(-1.25)


def test_a_part_that_is_no_longer_frozen_is_recorded(graphs):
    """Two weights, of which one is trained from the sixth step on."""
    weights = [nn.Parameter(torch.zeros(())) for _ in range(2)]
    weights[1].requires_grad_(False)
    optimizer = fused_adam(weights, lr=0.5, betas=(0.0, 0.0))

    def step(batch):
        optimizer.zero_grad()
        sum(weight for weight in weights if weight.requires_grad).backward()
        optimizer.step()
        return {"a": batch.input_NCHW.mean()}

    captured = CapturedStep(step, optimizers=[optimizer], device=CPU)
    for number in range(10):
        if number == 5:
            weights[1].requires_grad_(True)
            captured.start_over()
            assert not captured.recorded
        captured(Batch(["x"], torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))
    assert graphs == {"warm": 6, "recorded": 2, "replayed": 4}
    assert [weight.item() for weight in weights] == [pytest.approx(-5.0), pytest.approx(-2.5)]


class Watch(lightning.Callback):
    """What the loggers are to write, and after which step."""

    def __init__(self):
        self.written = {}

    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step % trainer.log_every_n_steps == 0 or trainer.is_last_batch:
            self.written[trainer.global_step] = dict(trainer.callback_metrics)


def test_training_through_the_buffers_equals_training_without(graphs, tmp_path, monkeypatch):
    """Lightning's counters, the losses that are written and the weights, with a last batch that is not full."""
    images = torch.rand(7, 2, 2, 3, 16, 16) * 2 - 1
    data = [Batch(["x"] * 2, a, b) for a, b in images]
    data.append(Batch(["x"], images[0, 0, :1], images[0, 1, :1]))
    trained = []
    for captured in (False, True):
        torch.manual_seed(0)
        model = pix2pix(TinyGenerator(), TinyDiscriminator(), optimizer=partial(fused_adam, betas=(0.5, 0.999)))
        if captured:
            monkeypatch.setattr(capture, "reason_against", lambda *_, **__: None)
        watch = Watch()
        trainer = fit(model, data, tmp_path, max_epochs=2, callbacks=[watch], log_every_n_steps=3)
        trained.append((trainer.global_step, watch.written, model.state_dict()))
    assert graphs == {"warm": 3, "recorded": 1, "replayed": 11}
    (steps, written, weights), (their_steps, their_written, their_weights) = trained
    assert steps == their_steps == 16
    assert written.keys() == their_written.keys() == {3, 6, 8, 9, 12, 15, 16}
    for step, losses in written.items():
        assert losses.keys() == {"train/D", "train/G_gan", "train/G_l1"}
        torch.testing.assert_close(losses, their_written[step], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights, their_weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"capture": "yes"}, r"model\.capture=yes is not known: use auto, true or false"),
        ({"compile": True, "adversarial": WassersteinGP()}, r"model\.compile cannot differentiate twice"),
        ({"compile": "max-autotune"}, r"model\.compile=max-autotune records CUDA graphs of its own"),
    ],
)
def test_options_that_do_not_go_together(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        pix2pix(TinyGenerator(), TinyDiscriminator(), **options)


def test_compiled_networks_keep_their_names_and_are_deployed_as_they_were(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: asked.append(options) or call)
    model = pix2pix(TinyGenerator(), TinyDiscriminator(), compile="default")
    assert asked == [{"mode": "default", "dynamic": False}] * 2
    assert model.state_dict().keys() == pix2pix(TinyGenerator(), TinyDiscriminator()).state_dict().keys()
    model(torch.zeros(1, 3, 16, 16))
