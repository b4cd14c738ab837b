"""Ctrl-C at a time of our own choosing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted(wake: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if Ctrl-C has been pressed in the block, and raise it at its end.

    Python's own way is to raise it wherever the program happens to be, and in a destructor it is lost. A second Ctrl-C
    does that. Outside the main thread, or where someone else has taken the signal over, all stays as it is.

    Args:
        wake: called when it is pressed, to end a wait that a signal does not end.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True
        wake()

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    check()
