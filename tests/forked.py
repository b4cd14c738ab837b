"""The real commands as forks of a process that has imported them: a life costs a second, not ten.

`python -m tests.forked` imports what the commands import, starts no thread, and forks a child for each order;
the child leaves the loop and runs the script as Python would: its own arguments, folder, variables and files, its
exceptions, its exit status. So a test can kill a hundred of them. An order is one line of JSON on standard input, an
answer one on standard output; `tests/started.py` has the other end.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from p2p.shipped import CONF
from tests.composing import compose_once


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
    log, errors = (os.open(order[name], os.O_TRUNC | os.O_APPEND | os.O_WRONLY) for name in ("log", "errors"))
    for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), log, errors)):
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
        "p2p.report.gallery",
        "p2p.training.callbacks.live",
        "p2p.training.callbacks.samples",
        "p2p.training.pix2pix",
        "s3fs",  # if it is there, Lightning imports it
        "sympy.tensor.tensor",  # torch.export does
        "torch.export._trace",
        "torch.utils.tensorboard",
        "torchmetrics.image",
    ):
        with suppress(ModuleNotFoundError):  # of an extra: whoever needs it will say so
            importlib.import_module(name)
    compose_once(pytest.MonkeyPatch())
    for name in ("train", "export", "infer"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork would lack all but one"
    print(json.dumps("ready"), flush=True)
    order = serve()
    become(order)
    runpy.run_path(order["run"][0], run_name="__main__")
