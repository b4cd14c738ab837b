import signal
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.optimizer import register_optimizer_step_post_hook

from p2p.batch import Batch
from p2p.system import signals
from p2p.training.callbacks import interrupt
from p2p.training.callbacks.interrupt import ASK_EVERY, Interrupt
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix


@pytest.fixture
def press():
    """Ctrl-C right after the given updates of weights: each step has two, the discriminator's and the generator's."""
    count, when = [0], set()

    def hook(*_):
        count[0] += 1
        if count[0] in when:
            signal.raise_signal(signal.SIGINT)

    handle = register_optimizer_step_post_hook(hook)
    yield when.update
    handle.remove()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored after the last step


def train(tmp_path):
    save = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_exception=True, enable_version_counter=False)
    batches = [Batch(["x"], *torch.rand(2, 1, 3, 16, 16)) for _ in range(5)]
    options = {"enable_checkpointing": True, "callbacks": [Interrupt(), save]}
    return fit(pix2pix(TinyGenerator(), TinyDiscriminator()), batches, tmp_path, **options)


def steps(tmp_path):
    record = torch.load(tmp_path / "last.ckpt", weights_only=True)
    done = record["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"]
    return record["global_step"], done


@pytest.mark.parametrize("update", [5, 6])
def test_the_step_that_is_interrupted_is_finished_and_counted(tmp_path, press, update, capfd):
    press([update])
    with pytest.raises(SystemExit):
        train(tmp_path)
    assert steps(tmp_path) == (3, 3)
    assert "Ctrl-C again" in capfd.readouterr().err


def test_a_second_press_stops_at_once(tmp_path, press, capfd):
    press([5, 6])
    with pytest.raises(SystemExit):
        train(tmp_path)
    assert steps(tmp_path) == (2, 2)
    assert "stopping in this step, and saving; press Ctrl-C again to stop without saving" in capfd.readouterr().err


def test_after_the_last_step_nothing_is_lost_either(tmp_path, press):
    press([10])
    with pytest.raises(SystemExit):
        train(tmp_path)
    assert steps(tmp_path)[0] == 5


@pytest.mark.parametrize("error", [None, ValueError])
def test_whatever_ends_the_training_the_signal_is_pythons_again(error, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    if error:
        monkeypatch.setattr(TinyGenerator, "forward", fail)
    with pytest.raises(error) if error else nullcontext():
        train(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_of_several_gpus_all_stop_at_the_question_after_the_one_that_was_answered_yes(monkeypatch):
    """The host never waits for an answer that cannot be there yet, and Lightning asks nothing."""
    asked, loop = [], SimpleNamespace(_broadcast_sigterm_tensor=lambda: pytest.fail("the host waits"))

    def ask(yes, device):
        asked.append(yes)
        return lambda: yes or len(asked) == 3  # the third time another process says it

    monkeypatch.setattr(interrupt, "ask", ask)
    monkeypatch.setattr(signals, "answer", lambda how: None)
    monkeypatch.setattr(signals, "received", None)
    trainer = SimpleNamespace(world_size=2, fit_loop=SimpleNamespace(epoch_loop=loop))
    model, callback = SimpleNamespace(device=torch.device("cuda:0")), Interrupt()
    callback.on_train_start(trainer, model)
    loop._broadcast_sigterm_tensor()
    with pytest.raises(signals.Stop):
        for batch in range(100):
            callback.on_train_batch_start(trainer, model, None, batch)
    assert batch == 3 * ASK_EVERY and asked == [False] * 4
    monkeypatch.setattr(signals, "received", signal.SIGINT)
    callback.on_train_start(trainer, model)
    with pytest.raises(signals.Stop):
        for batch in range(100):
            callback.on_train_batch_start(trainer, model, None, batch)
    assert batch == ASK_EVERY
