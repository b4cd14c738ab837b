"""docs/extending.md: its blocks are written to a package, its commands are run, and each part of it leaves its mark."""

import csv
import json
import re
import runpy
import shlex
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tests.test_commands import Score

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs/extending.md").read_text()
BLOCK = re.compile(r"^```(?:python|yaml)\n# (mine/\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^    python (\w+)\.py ((?:.*\\\n)*.*)", re.MULTILINE)
SMALL = ["image_size=32", "epochs=2", "batch_size=2", "trainer=cpu", "discriminator=pixel", "discriminator.width=4"]
SMALL += ["logger=csv", "trainer.log_every_n_steps=1", "data.root=rings", "scheduler.epochs=4"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The package, in the current folder; `mine(command)` runs that command of the text in this process."""
    for path, text in BLOCK.findall(TEXT):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    commands = {name: shlex.split(rest.replace("\\\n", "")) for name, rest in reversed(COMMAND.findall(TEXT))}

    def run(name, *more, typed=None):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *(commands[name] if typed is None else typed), *more])
        runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)


def test_one_of_each_from_outside(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("P2P_TRUST", raising=False)
    run_dir = tmp_path / "runs/mine"
    mine("train", *SMALL)
    with (run_dir / "csv/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {"train/G_ink", "train/G_l1", "val/contrast", "unchanged/contrast"}
    assert logged <= rows[0].keys()
    assert [float(row["lr/G"]) for row in rows if row["lr/G"]] == pytest.approx([0.25 * 2e-4, 0.5 * 2e-4])
    assert (run_dir / "diary.txt").read_text().count("epoch ") == 2
    assert len(list((tmp_path / "rings/val").glob("*.png"))) == 4
    weights = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[1] for name in weights if name.startswith("generator.")} == {"0", "1", "3"}

    with pytest.raises(SystemExit) as stopped:
        mine("export")
    asked = re.search(r"would be called: if you trust them, set P2P_TRUST=(\S+) in", stopped.value.code)[1]
    assert len(asked.split(",")) > 3 and all(name.startswith("mine.") for name in asked.split(","))
    monkeypatch.setenv("P2P_TRUST", "mine")
    capsys.readouterr()
    mine("train", typed=["name=mine", "ckpt_path=last", "epochs=3"])
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "epochs: 2 -> 3" and "->" not in said[2]  # all else is the run's own
    mine("export")
    assert json.loads((run_dir / "export/manifest.json").read_text())["program"]["backend"] == "mine.graphs"
    mine("infer", "gallery=0", "+hydra.callbacks.score._target_=tests.test_commands.Score")
    assert 0 < Score.found < 1e6  # images/s
    written = sorted((run_dir / "images").glob("*.ppm"))
    assert [path.stem for path in written] == ["0", "1", "2", "3"]

    mine("infer", "gallery=0", "pipeline=sequential", "codec=pillow", f"output={tmp_path}/png")
    for path in written:
        assert np.array_equal(Image.open(path), Image.open(tmp_path / f"png/{path.stem}.png"))


def test_the_transform_cuts_in_the_middle(mine):
    from mine.transforms import Centred

    view = Centred(image_size=16, load_size=20).draw(20, 20)
    assert (view.top, view.left, view.height, view.width) == (2, 2, 16, 16)
