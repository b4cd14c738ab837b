"""Starts the commands by `tests.forked`, and looks after them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def as_in_a_terminal():
    """Take Ctrl-C, which shells have the programs ignore that they start in the background, such as these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """One of the three commands, running or ended; `pid` stays its own until `ended` has said that it is over."""

    def __init__(self, commands, arguments, environment, log, errors):
        self._commands, self._log, self._errors, self._code = commands, log, errors, None
        log.touch(), errors.touch()
        order = {"run": [str(a) for a in arguments], "env": environment, "folder": str(ROOT)}
        self.pid = commands.ask(order | {"log": str(log), "errors": str(errors)})

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
        """All that it printed, to either stream; if they are `apart`, to standard output."""
        return self._log.read_text(errors="replace")

    def complained(self):
        """What it printed to standard error."""
        return self._errors.read_text(errors="replace")


class Commands:
    """Starts commands in a second or less; see `tests.forked`.

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
            [*before, sys.executable, "-m", "tests.forked"],
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

    def start(self, *arguments, apart=False, **variables):
        """Start `train.py name=x`, say, and return at once; standard error has a file of its own if it is `apart`."""
        self._count += 1
        log = self.folder / f"{self._count}.log"
        return Command(self, arguments, self.environment | variables, log, log.with_suffix(".err") if apart else log)

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


def processes_of(commands):
    """The numbers of all processes that these commands started, workers included, and that are alive."""
    mark = f"TMPDIR={commands.environment['TMPDIR']}".encode()
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if mark in (each / "environ").read_bytes() and int(each.name) != commands.pid:
                found.append(int(each.name))
    return found
