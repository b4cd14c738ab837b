"""Commands as processes of their own, whose GPU may be lost to them, and what the GPU's memory is left with."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import torch
from PIL import Image

from tests.conftest import ROOT

SMALL = ["image_size=64", "generator.width=16", "discriminator.width=16", "discriminator.layers=1"]
OVERLAP = ["+pipeline=overlap", "batch_size=8"]

HOLD = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


def start(*arguments, **environment):
    """A process of Python in the repository, its standard error with its output."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process, *, seconds=120):
    """What it printed, when it has ended; its `returncode` is there then."""
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        raise AssertionError(f"it hangs: {out}") from None
    print(out)  # shown where a test fails
    return out


def run(*arguments, code=0, seconds=120, **environment):
    """What it prints, if it ends with that exit status and without a stack trace."""
    process = start(*arguments, **environment)
    out = ended(process, seconds=seconds)
    assert process.returncode == code, out
    assert "Traceback" not in out
    return out


@contextmanager
def another_process_holds_all_but(free):
    """A process that has taken all of the GPU's memory but so many bytes."""
    torch.cuda.empty_cache()
    process = start("-c", HOLD, free)
    try:
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        ended(process)


def used():
    """Bytes of the GPU's memory that anyone has."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


def until_memory_is_back(before):
    """The driver takes a moment to clean up after a process."""
    deadline = time.monotonic() + 10
    while used() > before + (64 << 20):
        assert time.monotonic() < deadline, "memory is still held"
        time.sleep(0.2)


def infer(inputs, program, out, *overrides):
    """The arguments of infer.py."""
    places = [f"input={inputs}", f"export={program}", f"output={out}", f"run_dir={out}.run"]
    return ["infer.py", *places, "gallery=0", *overrides]


def pictures(folder):
    """The bytes of each picture by its name, without the records that infer.py keeps beside them."""
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def whole(folder):
    """How many pictures are in a folder, where nothing else of a run is but its records, and each is whole."""
    paths = [path for path in folder.glob("*") if path.name not in (".p2p.json", "failures.csv")]
    for path in paths:
        assert path.suffix == ".png"
        with Image.open(path) as image:
            image.load()
    return len(paths)
