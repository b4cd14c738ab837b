"""The real commands as forks of a process that has imported them: a life costs a second, not ten.

`python -m tests.faults.forked` imports what the commands import, starts no thread, and forks a child for each order;
the child leaves the loop and runs the script as Python would: its own arguments, folder, variables and files, its
exceptions, its exit status. So a test can kill a hundred of them. An order is one line of JSON on standard input, an
answer one on standard output; `tests/faults/conftest.py` has the other end.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path


def serve() -> dict:
    """Answer orders until there are no more; returns, in a child alone, what it is to run."""
    for line in sys.stdin:
        order = json.loads(line)
        if "run" in order:
            if (answer := os.fork()) == 0:
                return order
        elif "ended" in order:
            pid, status = os.waitpid(order["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif "shell" in order:
            answer = subprocess.run(order["shell"], shell=True, stdin=subprocess.DEVNULL, stdout=2).returncode
        print(json.dumps(answer), flush=True)
    raise SystemExit


def become(order: dict) -> None:
    """Be a process of its own, which has nothing of its parent's but the modules."""
    os.setsid()
    log = os.open(order["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
    for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["folder"])
    tempfile.tempdir = None  # TMPDIR is read anew
    sys.argv = order["run"]


if __name__ == "__main__":
    for name in (
        "lightning.pytorch.loggers",
        "p2p.codecs.fast",
        "p2p.commands.export",
        "p2p.commands.infer",
        "p2p.commands.train",
        "p2p.pipelines.overlap",
        "p2p.pipelines.sequential",
        "torch.export._trace",
        "torchmetrics.image",
    ):
        importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork would lack all but one"
    print(json.dumps("ready"), flush=True)
    order = serve()
    become(order)
    runpy.run_path(order["run"][0], run_name="__main__")
