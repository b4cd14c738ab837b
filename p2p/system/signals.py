"""Ctrl-C, `kill` and a closed terminal: a command ends with one sentence, and with the exit status that shells expect.

A signal is answered by the phase that it meets:
- Start-up (imports, composing the config): nothing was done, so the process ends on the spot. An exception would not
  do, because an import can lose it or turn it into another one.
- Work: the exception `Stop` in the main thread, a KeyboardInterrupt, so that everything is cleaned up that is after
  Ctrl-C. Training finishes its step before (`p2p.training.callbacks.interrupt`).
- The same signal again: the process ends on the spot.

What was ignored when the command started stays ignored: Ctrl-C in background jobs of a shell, SIGHUP under nohup.
This module is imported first and imports nothing that takes time.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

NAMES: dict[int, str] = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP, its terminal was closed",
}
NOTHING_DONE = "before any work was done"
FILES_WHOLE = "every file that was written is complete"

received: int | None = None  # the first signal that asked this process to end
_doing = NOTHING_DONE
_process = os.getpid()


class Stop(KeyboardInterrupt):
    """A signal asks the command to end; raised in the main thread."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Run a command's whole program, from its imports on; exit with 128 and the signal's number if one ends it.

    Whatever leaves the block after a signal follows from it, such as the loss of a worker that the signal met, too.
    """
    global received, _doing, _process
    received, _doing, _process = None, NOTHING_DONE, os.getpid()
    answer(leave)
    sys.unraisablehook = _raise_again
    try:
        yield
    except BaseException as error:
        if received is None and not isinstance(error, KeyboardInterrupt):
            raise
        answer(leave)
        if isinstance(error, SystemExit) and isinstance(error.code, str):
            _say(error.code)  # what was to be saved, and could not be
        _say(f"\n{_sentence(received or signal.SIGINT)}")
        sys.exit(128 + (received or signal.SIGINT))
    finally:
        answer(leave)  # while the interpreter ends, too


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Run a command inside a program that goes on after it, such as a notebook, and has its own answers to signals.

    Raises:
        KeyboardInterrupt: a signal has ended the command, whatever a library made of that.
    """
    global received, _process
    before = {number: signal.getsignal(number) for number in NAMES}
    received, _process = None, os.getpid()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning exits
        raise KeyboardInterrupt from None
    finally:
        received = None
        for number, handler in before.items():
            if handler is not None:  # or it was not set from Python
                _set(number, handler)


@contextmanager
def kept() -> Iterator[None]:
    """Have signals answered after the block as before it, whatever a library sets in it."""
    before = {number: signal.getsignal(number) for number in NAMES}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                _set(number, handler)


def work() -> None:
    """From here on a signal raises `Stop`."""
    global _doing
    _doing = FILES_WHOLE
    answer(stop)


@contextmanager
def starting() -> Iterator[None]:
    """Work that has left nothing yet, and imports: a signal ends the process on the spot again. Inside of `work`."""
    global _doing
    ours, doing = [number for number in NAMES if signal.getsignal(number) is stop], _doing
    for number in ours:
        signal.signal(number, leave)
    _doing = NOTHING_DONE
    try:
        yield
    finally:
        _doing = doing
        for number in ours:
            signal.signal(number, stop)


def check() -> None:
    """Raise `Stop` if a signal was received: where a library may have lost the exception, or it was put off."""
    if received is not None:
        raise Stop


def answer(by: Callable[[int, FrameType | None], None]) -> None:
    """Let `by` answer the signals that end a command, but for those that are ignored."""
    for number in NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _set(number, by)


def _set(number: int, by: Callable[[int, FrameType | None], object] | int) -> None:
    if threading.current_thread() is threading.main_thread():  # Python lets no other
        signal.signal(number, by)


def note(number: int) -> bool:
    """Whether a signal concerns this process and is the first; the same one again ends the process."""
    global received
    if os.getpid() != _process:  # forked: ends with its parent after Ctrl-C, which reaches both, or as it is told to
        if number != signal.SIGINT:
            os._exit(128 + number)
        return False
    if received == number:
        leave(number)
    first = received is None
    received = received or number
    return first


def stop(number: int, frame: FrameType | None = None) -> None:
    """Raise `Stop` at the first signal."""
    if note(number):
        raise Stop


def leave(number: int, frame: FrameType | None = None) -> None:
    """End the process here and now, without cleaning up."""
    if os.getpid() == _process:
        _say(f"\n{_sentence(number)}")
    os._exit(128 + number)


def end(sentence: str) -> None:
    """End the process here and now with a sentence and exit status 1, without cleaning up."""
    _say(sentence)
    os._exit(1)


def _sentence(number: int) -> str:
    return f"stopped by {NAMES[number]}{' ' if _doing == NOTHING_DONE else '; '}{_doing}"


def _say(sentence: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") != "0":  # the first of several processes speaks
        return
    try:
        sys.stdout.flush()
    except (OSError, RuntimeError):  # the terminal is gone, or the signal interrupts a print
        sys.stdout = io.StringIO()  # or Python would exit with 120, because it cannot flush
    with suppress(OSError):
        os.write(2, f"{sentence}\n".encode(errors="backslashreplace"))


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """`Stop` is lost where it meets a destructor: raise it once more, a moment later."""
    if not isinstance(lost.exc_value, Stop):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stop
