import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("command", ["train", "export", "infer"])
def test_a_python_without_packages_is_one_sentence(command, tmp_path):
    """`-S` leaves site-packages out, as the Python of a new clone has none."""
    words = [sys.executable, "-S", ROOT / f"{command}.py", "name=mine"]
    run = subprocess.run(words, cwd=tmp_path, env={}, capture_output=True, text=True)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.count("\n") == 1
    assert f"{sys.executable} has no package hydra: install p2p by `make demo`" in run.stderr
    assert not [*tmp_path.iterdir()]
