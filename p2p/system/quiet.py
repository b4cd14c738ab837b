"""Silence libraries that print details while they compile."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what is logged, warned and printed meanwhile, in all threads of this process; exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # handlers keep the stream that they began with, hence not only the streams
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def no_stderr() -> Iterator[None]:
    """Drop what C++ libraries write meanwhile to this process's standard error, by its number; exceptions pass."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
