import subprocess
import sys

import hydra
import pytest

from p2p.shipped import CONF
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


@pytest.mark.parametrize("command", ["train", "export", "infer"])
def test_the_lines_of_a_sweep_have_no_time_and_level(command):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loggings = hydra.compose(command, return_hydra_config=True).hydra.hydra_logging
    formats = {handler.formatter for handler in loggings.handlers.values()}
    assert [loggings.formatters[each].format for each in formats] == ["%(message)s"]
