"""Importing libraries of a hundred thousand objects sooner."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Keep Python's collector from what is made meanwhile: modules, which last as long as the process.

    It would go through all of them again and again, also when the process ends: of the 1.9 s of `import torch` on two
    cores these are 0.5. Where torch is imported already, as in a sweep's second job, nothing is to be gained, and what
    a job has left is to be collected.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
