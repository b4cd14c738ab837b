"""Starting the processes of workers: when they are wanted, or early, while torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection

START = "import sys; from p2p.pipelines.{} import main; main(int(sys.argv[1]))"
_early: list[tuple[Connection, subprocess.Popen]] = []  # processes that no pipeline has taken yet


@contextmanager
def early() -> Iterator[Callable[[int], None]]:
    """Gives what starts so many processes while torch is imported, for the pipeline's `Workers` to take over.

    At the end, those that were not taken are ended.
    """
    try:
        yield lambda count: _early.extend(_process() for _ in range(count))
    finally:
        while _early:
            connection, process = _early.pop()
            connection.close()
            process.kill()
            process.wait()


def take() -> tuple[Connection, subprocess.Popen]:
    """A worker's process and the connection to it: one that was started early, or a new one."""
    return _early.pop() if _early else _process()


def _process() -> tuple[Connection, subprocess.Popen]:
    """A worker that waits for its setup at the other end."""
    # Threads of a BLAS library that nothing here calls cost memory and a fifth of the start.
    return start("worker", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")


def start(module: str, **environment: str) -> tuple[Connection, subprocess.Popen]:
    """A fresh interpreter that runs `main` of a module of this package, and the connection to it.

    It is a session of its own, which Ctrl-C in the terminal does not reach.
    """
    here, there = Pipe()
    with there:
        process = subprocess.Popen(
            [sys.executable, "-c", START.format(module), str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        )
    return here, process
