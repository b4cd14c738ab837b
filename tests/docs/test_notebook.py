"""examples/quickstart.ipynb runs from top to bottom in an empty folder, and shows what is saved in it."""

import copy
import re

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.notebook


def texts(cell):
    """The results of a cell as text: fractions may differ by rounding on another processor."""
    results = [each for each in cell.outputs if each.output_type == "execute_result"]
    return [re.sub(r"\d+\.\d+", "N", each["data"]["text/plain"]) for each in results]


def test_the_notebook_runs_and_gives_its_saved_results(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    saved = nbformat.read(ROOT / "examples/quickstart.ipynb", as_version=4)
    run = copy.deepcopy(saved)
    nbclient.NotebookClient(run, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs/quickstart/checkpoints/last.ckpt").exists()
    expected, found = ([texts(cell) for cell in book.cells if cell.cell_type == "code"] for book in (saved, run))
    assert found == expected and all(found)


def test_the_saved_notebook_names_no_folder_of_a_machine():
    text = (ROOT / "examples/quickstart.ipynb").read_text()
    assert not re.search(r'"[^"]*/(home|root|tmp|Users)/', text)
