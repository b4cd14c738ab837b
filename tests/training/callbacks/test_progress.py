"""The bar, and the lines that stay."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from torch.utils.data import DataLoader

from p2p.batch import Batch
from p2p.training.callbacks import progress
from p2p.training.callbacks.progress import Progress, clock
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix

BATCHES, EPOCHS, STEP_S, VALIDATION_S = 4, 3, 10.0, 5.0


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock(Callback):
    """A watch that training moves: a step takes 10 s, in the first epoch 100, and a validation 5 s."""

    def __init__(self):
        self.now = 0.0

    def on_train_batch_start(self, trainer, *rest):
        self.now += STEP_S if trainer.current_epoch else 100.0

    def on_validation_epoch_end(self, *rest):
        self.now += VALIDATION_S


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    """Train with output to a terminal, or not; returns what either stream has got."""

    def run(*, terminal, refresh_s=0.0):
        watch, screen = Clock(), Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: watch.now))
        monkeypatch.setattr(sys, "stderr", screen)
        batches = [Batch(["x"], *torch.rand(2, 1, 3, 16, 16)) for _ in range(BATCHES)]
        callbacks = [watch, Progress(refresh_s=refresh_s)]
        options = {"max_epochs": EPOCHS, "callbacks": callbacks, "enable_progress_bar": True}
        model, val = pix2pix(TinyGenerator(), TinyDiscriminator()), DataLoader(batches[:1], batch_size=None)
        fit(model, batches, tmp_path, val=val, **options)
        return capsys.readouterr().out, re.split(r"[\r\n]", screen.getvalue())

    return run


def test_a_pipe_gets_one_line_an_epoch(trained):
    out, err = trained(terminal=False)
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert [line[:11] for line in lines] == [f"epoch   {n}/3" for n in (1, 2, 3)]
    assert all(re.search(r"val L1 \S+  PSNR \S+  SSIM \S+  0\.\d images/s", line) for line in lines)
    assert not [line for line in err if "|" in line]


def test_the_bar_says_what_is_done_and_how_long_the_whole_takes(trained):
    _, err = trained(terminal=True)
    seen = [line for line in err if "%|" in line]
    doing = [re.search(r"\d/3 ([a-z, ]+?):? +\d+%", line)[1] for line in seen]
    assert {"training", "validating", "saving"} <= {*doing}
    # In the middle of the second epoch, 425 s after the start, the rest as the first one was: 6 x 100 s and 2 x 5 s.
    (line,) = [line for line in seen if "epoch   2/3 training" in line and " 50%|" in line]
    assert "10:10 left of 17:15" in line and re.search(r"images/s  D \d\.\d{3}  G_gan", line)
    # And in the third epoch as the second was: 2 steps and a validation.
    (line,) = [line for line in seen if "epoch   3/3 training" in line and " 83%|" in line]
    assert "0:25 left" in line


def test_the_bar_moves_by_time(trained):
    updates = [len([line for line in trained(terminal=True, refresh_s=each)[1] if "training" in line])
               for each in (0.0, 50.0, 1e6)]  # fmt: skip
    assert updates[0] > updates[1] > updates[2]


@pytest.mark.parametrize(("seconds", "text"), [(7.2, "0:07"), (59.6, "1:00"), (151, "2:31"), (3723, "1:02:03")])
def test_the_clock(seconds, text):
    assert clock(seconds) == text
