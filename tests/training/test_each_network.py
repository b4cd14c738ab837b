"""Processes that train together, and the end of one; what they compute: tests/test_ddp.py."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from p2p.system import gpu_faults
from p2p.training import each_network
from p2p.training.each_network import EachNetwork, Launcher

FAILS, WAITS = ("import sys; sys.exit(3)", "import time; time.sleep(60)")


@pytest.fixture
def launcher(monkeypatch):
    """`launcher(*programs)`: of a first process, with others that run these."""
    monkeypatch.setattr(each_network, "LOOK_S", 0.01)
    monkeypatch.setattr(each_network, "GRACE_S", 0.3)
    started = []

    def make(*programs):
        def start(self):
            self.procs = [subprocess.Popen([sys.executable, "-S", "-c", program]) for program in programs]
            started.extend(self.procs)

        monkeypatch.setattr(Launcher, "_call_children_scripts", start)
        environment = SimpleNamespace(validate_settings=lambda **_: None, creates_processes_externally=False)
        return Launcher(environment, num_processes=1 + len(programs), num_nodes=1)

    yield make
    for process in started:
        process.kill()
        process.wait()


def test_another_process_that_ends_ends_this_one(launcher, monkeypatch):
    """Which waits for it, and could not say a word."""
    said = []
    monkeypatch.setattr(each_network.signals, "end", said.append)
    two = launcher(FAILS, WAITS)

    def waits():
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)

    two.launch(waits)
    assert said[0].startswith(
        "error: process 2 of 3 that train together has ended (exit status 3): what it said stands"
    )
    assert two.procs[1].wait(10) == -9


def test_where_the_exchange_fails_the_other_process_is_the_reason(launcher):
    def exchanges():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]: Connection reset by peer")

    with pytest.raises(ValueError, match=r"^process 2 of 2 that train together has ended \(exit status 3\)"):
        launcher(FAILS).launch(exchanges)


def test_an_error_here_ends_the_others_and_waits_for_none(launcher):
    """The last checkpoint is saved without them."""
    strategy = EachNetwork()
    strategy._launcher = launcher(WAITS)

    def fails():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        strategy.launcher.launch(fails)
    assert strategy.launcher.procs[0].wait(10) == -9
    strategy.barrier()  # without a process group it would return at once, and with one wait
    assert strategy.broadcast("mine") == "mine" and strategy.reduce_boolean_decision(True) is True


def test_no_trials_of_batch_sizes_among_several_processes(monkeypatch):
    """The others are gone, and would be waited for."""

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(torch.OutOfMemoryError):
        gpu_faults.or_say_what_fits(full, setting="batch_size", size=8, attempt=lambda size: pytest.fail("a trial"))
