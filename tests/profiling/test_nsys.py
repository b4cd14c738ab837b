import os
import subprocess
import sys

import pytest

from p2p.config.cli import CONF
from p2p.profiling import nsys
from p2p.profiling.clock import Clock

COMMAND = """
import sys
from p2p.profiling.clock import Clock
from p2p.profiling.nsys import profile
print("before", flush=True)
for job in (1, 2):  # of a sweep
    with profile(Clock(), folder=f"{sys.argv[1]}{job}"):
        print("inside", job, sys.argv[2:])
"""
FAKE = """#!/bin/sh
echo "fake $1 $2 $3 $4"
for i in 1 2 3 4; do shift; done
exec "$@"
"""


@pytest.fixture
def fake_nsys(tmp_path, monkeypatch):
    """An nsys that says what it was asked for and runs the command, as the real one does."""
    path = tmp_path / "bin/nsys"
    path.parent.mkdir()
    path.write_text(FAKE)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    return path


def test_the_command_runs_again_under_nsys_and_only_once(fake_nsys, tmp_path):
    script, folder = tmp_path / "command.py", tmp_path / "runs/x"
    script.write_text(COMMAND)
    command = [sys.executable, script, folder, "a b", "key='x'"]
    environment = os.environ | {"PYTHONPATH": str(CONF.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == [
        "before",
        f"fake profile --trace=cuda,nvtx,osrt --output={folder}1/profile --force-overwrite=true",
        "before",
        """inside 1 ['a b', "key='x'"]""",
        f"look at {folder}1/profile.nsys-rep with nsys-ui, or nsys stats",
        """inside 2 ['a b', "key='x'"]""",
        f"look at {folder}1/profile.nsys-rep with nsys-ui, or nsys stats",  # there is one report for all jobs
    ]
    assert (tmp_path / "runs/x1").is_dir()


def test_the_process_is_replaced_and_interpreter_options_stay(fake_nsys, tmp_path, monkeypatch):
    replaced = []

    def execve(*arguments):  # which does not return
        replaced.append(arguments)
        raise SystemExit

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "infer.py", "profile=nsys"])
    with pytest.raises(SystemExit), nsys.profile(Clock(), folder=tmp_path, trace="cuda"):
        pass
    ((path, arguments, environment),) = replaced
    assert path == arguments[0] == str(fake_nsys)
    assert arguments[1:3] == ["profile", "--trace=cuda"]
    assert arguments[-5:] == [sys.executable, "-X", "dev", "infer.py", "profile=nsys"]
    assert environment["P2P_UNDER_NSYS"] == str(tmp_path / "profile.nsys-rep")


def test_without_nsys_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ValueError, match=r"no nsys on the PATH: install it, or use profile=timeline"),
        nsys.profile(Clock(), folder=tmp_path / "run"),
    ):
        raise AssertionError("the block must not run")
    assert not (tmp_path / "run").exists()
