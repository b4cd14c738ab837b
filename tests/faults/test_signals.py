"""Ctrl-C, SIGTERM and SIGHUP: real signals, in every phase of the commands."""

import os
import pty
import runpy
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from p2p.system import signals
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SMALL = [
    "image_size=32",
    "generator.depth=2",
    "generator.width=8",
    "discriminator=pixel",
    "discriminator.width=8",
    "trainer=cpu",
]
FAST = [*SMALL, "+trainer.limit_train_batches=4", "epochs=2"]  # all pairs are validated together
ENDS = {
    signal.SIGINT: (130, "stopped by Ctrl-C"),
    signal.SIGTERM: (143, "stopped by SIGTERM"),
    signal.SIGHUP: (129, "stopped by SIGHUP, its terminal was closed"),
}
NOTHING, WHOLE = " before any work was done", "; every file that was written is complete"


@pytest.fixture
def signalled(tmp_path, monkeypatch, capfd):
    """Run a command in this process, and send it a signal where a function is called: all that stderr has to say."""

    def run(command, *overrides, number, at, call=1):
        file, _, function = at.rpartition(":")
        calls = []

        def watch(frame, event, _):
            code = frame.f_code
            if event == "call" and code.co_name == function and code.co_filename.endswith(file):
                calls.append(1)
                if len(calls) == call:
                    sys.setprofile(None)
                    os.kill(os.getpid(), number)

        monkeypatch.setattr(sys, "argv", [f"{command}.py", *overrides, f"name={os.path.relpath(tmp_path, 'runs')}"])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
        capfd.readouterr()
        sys.setprofile(watch)
        try:
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(str(ROOT / f"{command}.py"), run_name="__main__")
        finally:
            sys.setprofile(None)
        assert len(calls) >= call
        code, sentence = ENDS[number]
        err = capfd.readouterr().err.strip()
        assert stopped.value.code == code, err
        assert err.endswith(sentence + WHOLE)
        assert "Traceback" not in err
        return err.removesuffix(sentence + WHOLE).strip()

    return run


def last_of(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


TRAINING = {
    "what it imports late": ("lightning/pytorch/trainer/trainer.py:__init__", 1, None),
    "the first validation": ("p2p/training/pix2pix.py:validation_step", 1, None),
    "before the first step": ("lightning/pytorch/loops/fit_loop.py:setup_data", 1, None),
    "the first step": ("p2p/training/pix2pix.py:_generator_step", 1, 1),
    "a later step": ("p2p/training/pix2pix.py:_discriminator_step", 3, 3),
    "the validation after an epoch": ("p2p/training/pix2pix.py:validation_step", 2, 4),
    "while a checkpoint is written": ("lightning/pytorch/callbacks/model_checkpoint.py:_save_checkpoint", 2, 4),
    "the second epoch": ("p2p/training/pix2pix.py:_generator_step", 6, 6),
    "the last validation": ("p2p/training/pix2pix.py:validation_step", 4, 8),
    "the table": ("p2p/report/tables.py:show_scores", 1, 8),
}


SOAK = pytest.mark.soak  # the others are of the same kind
QUICK = ["the first validation", "a later step", "while a checkpoint is written"]


@pytest.mark.parametrize(
    "phase", [*QUICK, *(pytest.param(phase, marks=SOAK) for phase in TRAINING if phase not in QUICK)]
)
def test_training_ends_in_every_phase_and_keeps_what_it_has_learnt(phase, signalled, tmp_path):
    at, call, steps = TRAINING[phase]
    number = list(ENDS)[list(TRAINING).index(phase) % 3]
    said = signalled("train", *FAST, number=number, at=at, call=call)
    in_training = steps not in (None, 8)
    again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
    assert said == (f"stopping after this step{again}" if in_training else "")
    assert (tmp_path / "checkpoints/last.ckpt").exists() == (steps is not None)
    if steps is not None:
        assert last_of(tmp_path)["global_step"] == steps


def test_a_sweep_stops_and_not_only_its_job(signalled, tmp_path):
    at = "p2p/training/pix2pix.py:_generator_step"
    signalled("train", "-m", *FAST, "~logger", "seed=0,1", number=signal.SIGTERM, at=at, call=3)
    assert len(list(tmp_path.rglob("last.ckpt"))) == 1


@SOAK
def test_export_and_infer_end_in_every_phase(signalled, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *FAST, "~logger", f"name={os.path.relpath(tmp_path, 'runs')}"])
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    for number, at in {
        signal.SIGINT: "torch/export/_trace.py:_export",
        signal.SIGTERM: "p2p/deploy/accuracy.py:psnr_db",
    }.items():
        assert signalled("export", "cache_dir=null", number=number, at=at) == ""
        assert not (tmp_path / "export").exists()
    monkeypatch.setattr(sys, "argv", ["export.py", f"name={os.path.relpath(tmp_path, 'runs')}"])
    runpy.run_path(str(ROOT / "export.py"), run_name="__main__")
    for number, at, call in (
        (signal.SIGTERM, "p2p/pipelines/stages.py:save", 3),
        (signal.SIGINT, "p2p/report/gallery.py:collect", 1),
    ):
        signalled("infer", number=number, at=at, call=call)


def start(command, *overrides, ignored=(), **options):
    def before():
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    arguments = [sys.executable, str(ROOT / f"{command}.py"), *overrides]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, text=True, preexec_fn=before, **options)


def imports(process, module):
    """Wait until a process has mapped one of a package's libraries: it is in the middle of its imports."""
    while module not in (ROOT / f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGINT, *(pytest.param(each, marks=SOAK) for each in list(ENDS)[1:])])
def test_imports_end_without_a_trace(number, tmp_path):
    process = start("train", f"name={os.path.relpath(tmp_path, 'runs')}")
    imports(process, {signal.SIGINT: "libtorch_python", signal.SIGTERM: "libc10", signal.SIGHUP: "numpy"}[number])
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    code, sentence = ENDS[number]
    assert (process.returncode, out, err.strip()) == (code, "", sentence + NOTHING)


def test_late_imports_end_on_the_spot_where_a_signal_would_raise(monkeypatch):
    """An import can lose an exception. Handlers of others, as where p2p is a library, are left alone."""
    monkeypatch.setattr(signals, "_doing", signals.FILES_WHOLE)
    signal.signal(signal.SIGTERM, signals.stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with signals.starting():
        assert signal.getsignal(signal.SIGTERM) is signals.leave
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signals._sentence(signal.SIGTERM).endswith(NOTHING)
    assert signal.getsignal(signal.SIGTERM) is signals.stop
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signals._sentence(signal.SIGTERM).endswith(WHOLE)


def test_what_is_ignored_at_the_start_stays_ignored(capfd):
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
    with signals.stoppable():
        signals.work()
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert capfd.readouterr().err == ""


def test_a_stop_that_a_destructor_loses_is_raised_again(capfd):
    class Lossy:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    with pytest.raises(SystemExit) as stopped, signals.stoppable():
        signals.work()
        Lossy()
        time.sleep(5)
    assert stopped.value.code == 143
    assert capfd.readouterr().err.strip() == "stopped by SIGTERM" + WHOLE


def test_what_follows_from_the_signal_is_not_told_in_its_place(capfd):
    for error, said in (
        (RuntimeError("DataLoader worker is killed"), ""),
        (SystemExit("error: x: disk full"), "error"),
    ):
        with pytest.raises(SystemExit) as stopped, signals.stoppable():
            signals.work()
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except signals.Stop:
                raise error from None
        assert stopped.value.code == 143
        err = capfd.readouterr().err
        assert "stopped by SIGTERM" in err and err.startswith(said)


@SOAK
def test_a_terminal_that_is_closed(tmp_path):
    """Nothing can be said any more, which must not change the exit status, nor keep the checkpoint from being saved."""
    terminal, side = pty.openpty()
    process = start("train", *SMALL, f"name={os.path.relpath(tmp_path, 'runs')}", "epochs=1000", "~logger",
                    stdout=side, stderr=side, stdin=side, start_new_session=True)  # fmt: skip
    os.close(side)
    while b"training on" not in os.read(terminal, 4096):
        pass
    time.sleep(0.5)
    os.close(terminal)
    os.kill(process.pid, signal.SIGHUP)  # the system's own way needs a controlling terminal
    assert process.wait(timeout=60) == 129
    assert last_of(tmp_path)["global_step"] > 0


@SOAK
@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("command", ["train", "export", "infer"])
def test_thirty_moments_of_each_command(command, number, tmp_path):
    """A sentence and the right status whenever the signal arrives, and afterwards the same command works."""
    name = f"name={os.path.relpath(tmp_path, 'runs')}"
    arguments = {"train": [*FAST, "epochs=6", "~logger"], "export": ["cache_dir=null"], "infer": []}
    before = {"train": [], "export": ["train"], "infer": ["train", "export"]}[command]
    for each in [*before, command]:
        began = time.monotonic()
        process = start(each, name, *arguments[each])
        assert process.communicate(timeout=300) and process.returncode == 0
    took = time.monotonic() - began
    code, sentence = ENDS[number]
    for moment in range(30):
        process = start(command, name, *arguments[command])
        time.sleep(0.15 + moment / 30 * took)  # before, Python itself is starting
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        if process.returncode == 0:  # it had ended
            assert moment > 20
            continue
        last_line = {"train": "next:", "export": "next:", "infer": "look at"}[command]
        if process.returncode == -number and last_line in out:  # Python itself was ending; a shell sees the same status
            continue
        assert process.returncode == code, (moment, out, err)
        assert "Traceback" not in err and sentence in err and "Exception ignored" not in err, (moment, err)
    process = start(command, name, *arguments[command])
    assert process.communicate(timeout=300) and process.returncode == 0
    assert not list(tmp_path.rglob("*.partial"))


def test_a_second_signal_ends_a_command_that_does_not_come_to_its_end():
    code = "from p2p.system.signals import *; import time\nwith stoppable():\n work()\n try:\n  print(flush=True)\n"
    code += "  time.sleep(60)\n finally:\n  time.sleep(60)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    process.stdout.readline()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):  # another one is no second
        process.send_signal(number)
        time.sleep(0.2)
    assert process.wait(timeout=10) == 130
    assert process.stderr.read().strip() == "stopped by Ctrl-C" + WHOLE
