import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import ROOT, picture

SMALL = ["trainer=cpu", "image_size=32", "generator.width=8", "discriminator=pixel", "discriminator.width=8"]


def as_in_a_terminal():
    """Take Ctrl-C, which shells have the programs ignore that they start in the background, such as these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """One of the three commands, running or ended; `pid` stays its own until `ended` has said that it is over."""

    def __init__(self, commands, arguments, environment, log):
        self._commands, self._log, self._code = commands, log, None
        log.touch()
        order = {"run": [str(a) for a in arguments], "env": environment, "folder": str(ROOT), "log": str(log)}
        self.pid = commands.ask(order)

    def ended(self):
        """Its exit status, minus the number of the signal that killed it; None while it runs."""
        if self._code is None:
            self._code = self._commands.ask({"ended": self.pid})
        return self._code

    def wait(self, limit_s=120):
        """Its exit status, at last."""
        deadline = time.monotonic() + limit_s
        while self.ended() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, 9)
                raise TimeoutError(f"still running after {limit_s} s:\n{self.said()}")
            time.sleep(0.005)
        return self._code

    def said(self):
        """All that it printed, to either stream."""
        return self._log.read_text(errors="replace")


class Commands:
    """Starts commands in a second or less; see `tests.faults.forked`.

    Args:
        folder: for logs and the temporary files of the commands.
        before: a command that runs the process, such as `unshare`.
    """

    def __init__(self, folder, *before):
        self.folder = folder
        (folder / "tmp").mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITON")}
        self.environment |= {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache")}
        self.environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.faults.forked"],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=as_in_a_terminal,
        )
        self.pid = self._process.pid
        self._count = 0
        assert json.loads(self._process.stdout.readline()) == "ready"

    def ask(self, order):
        """Give an order, return the answer."""
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments, **variables):
        """Start `train.py name=x`, say, and return at once."""
        self._count += 1
        return Command(self, arguments, self.environment | variables, self.folder / f"{self._count}.log")

    def run(self, *arguments, **variables):
        """The exit status of a command, and what it printed."""
        command = self.start(*arguments, **variables)
        return command.wait(), command.said()

    def succeed(self, *arguments, **variables):
        """Run a command that must work."""
        code, said = self.run(*arguments, **variables)
        assert code == 0, said
        return said

    def shell(self, line):
        """Run a line of the shell where the commands run, which must work."""
        assert self.ask({"shell": line}) == 0, line

    def seen(self, path):
        """A path as the commands see it, in their mounts."""
        return Path(f"/proc/{self.pid}/root{path}")

    def close(self):
        """End the process that forks, and what a test that failed has left running."""
        for pid in processes_of(self):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Fast starts of the three commands, with a temporary folder and a build cache of their own."""
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Commands in mounts of their own, for disks of any size."""
    unshare = ["unshare", "-m" if os.geteuid() == 0 else "-rm"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody but root mount file systems")
    commands = Commands(tmp_path_factory.mktemp("apart"), *unshare)
    yield commands
    commands.close()


def make_pairs(root, *, train, val):
    """A data set of A|B pairs, 64x32."""
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True)
        for index in range(count):
            picture(64, 32, seed=index).save(root / split / f"{index}.png")
    return root


def flaw(path, data):
    """What shows that a file is not whole, judged by its contents alone; None for a whole one, and for logs."""
    try:
        if path.suffix in (".ckpt", ".pt2"):
            return zipfile.ZipFile(io.BytesIO(data)).testzip()
        if path.suffix in (".png", ".jpg"):
            Image.open(io.BytesIO(data)).load()
        elif path.suffix == ".json":
            json.loads(data)
        elif path.name == "train.yaml" and "run_dir" not in OmegaConf.create(data.decode()):  # towards its end
            return "no record"
        elif path.suffix == ".html" and not data.rstrip().endswith(b"</html>"):
            return "no end"
    except Exception as error:  # of whatever library: it could not read the file
        return f"{type(error).__name__}: {error}"
    return None


class Reader:
    """Reads all files under folders again and again while the block runs, as a user with a viewer would.

    Args:
        folders: where, with all below them.
        judge: what is wrong with a file of that path and contents; None: nothing.
        pause_s: between two rounds.

    Attributes:
        reads: files read.
        wrong: for each file that once was not whole, why.
    """

    def __init__(self, *folders, judge=flaw, pause_s=0.01):
        self.reads, self.wrong = 0, {}
        self._folders, self._judge, self._pause_s = folders, judge, pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self):
        while not self._over.wait(self._pause_s):
            for path in files_in(*self._folders):
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                self.reads += 1
                if reason := self._judge(path, data):
                    self.wrong.setdefault(str(path), f"{len(data)} bytes: {reason}")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def files_in(*folders):
    """All files that have their names, which those that are being written have not."""
    for folder in folders:
        for where, _, names in os.walk(folder):
            yield from (Path(where, name) for name in names if not name.endswith(".partial"))


def partials_in(*folders):
    """All files that are being written, or were."""
    return [Path(where, name) for folder in folders for where, _, names in os.walk(folder) for name in names
            if ".partial" in name]  # fmt: skip


def listing(folder):
    """Names, times and sizes in a folder: what changes when a file is made, grows or gets another name."""
    try:
        return {(each.name, (stat := each.stat()).st_mtime_ns, stat.st_size) for each in os.scandir(folder)}
    except FileNotFoundError:
        return set()


def processes_of(commands):
    """The numbers of all processes that these commands started, workers included, and that are alive."""
    mark = f"TMPDIR={commands.environment['TMPDIR']}".encode()
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if mark in (each / "environ").read_bytes() and int(each.name) != commands.pid:
                found.append(int(each.name))
    return found


@pytest.fixture
def elsewhere(commands):
    """A folder on another file system than the temporary folder of the commands."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == commands.folder.stat().st_dev:
        pytest.skip("there is no second file system, such as /dev/shm")
    with tempfile.TemporaryDirectory(prefix="p2p-test-", dir=shared) as name:
        yield Path(name)
