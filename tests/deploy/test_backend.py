"""What every backend has, and one of another package: a file that p2p has never seen."""

import inspect
import sys

import pytest
import torch
from torch import nn

from p2p.deploy import fastest, timing
from p2p.deploy.backend import Backend, find, names
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export
from tests.conftest import ROOT

CPU = torch.device("cpu")
OUTSIDE = """
import torch
from p2p.deploy.manifest import Program

VERSIONS = {}

def unavailable():
    return None

def export(generator, example, folder, *, precision=None, min_batch=1, max_batch=None):
    torch.save(generator.state_dict(), folder / "weights.pt")
    return Program("outside.mine", "weights.pt", "float32", max_batch, {}, min_batch=min_batch)

def load(program, folder, *, device):
    network = torch.nn.Conv2d(3, 3, 1)
    network.load_state_dict(torch.load(folder / program.file))
    return network.to(device)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package with one backend."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/mine.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "outside.mine"
    for name in ("outside", "outside.mine"):
        sys.modules.pop(name, None)  # not by monkeypatch, which would bring it back at its own end


def test_the_folder_of_backends_holds_backends_alone():
    assert {f"{name}.py" for name in names()} == {path.name for path in (ROOT / "p2p/deploy/backends").glob("*.*")}
    for name in names():
        backend = find(name)
        assert set(backend.VERSIONS.values()) <= {"exact", "minor", "not older"}
        for function in ("unavailable", "export", "load"):
            expected = [each for each in inspect.signature(getattr(Backend, function)).parameters if each != "self"]
            found = inspect.signature(getattr(backend, function)).parameters
            assert list(found)[: len(expected)] == expected, (name, function)
            # What else it can be told has a default.
            assert all(each.default is not each.empty for each in list(found.values())[len(expected) :]), name


def test_a_module_that_lacks_a_part_is_refused(outside, tmp_path):
    (tmp_path / "outside/mine.py").write_text(OUTSIDE.replace("VERSIONS", "OTHER").replace("def load", "def other"))
    with pytest.raises(ValueError, match=r"^the backend outside\.mine has no VERSIONS and no load: see p2p\.deploy\."):
        find(outside)


def exported(folder, network, images, name):
    """Write an artifact to folder/export by that backend."""
    (folder / "last.ckpt").touch()
    facts = {"norm_stats": "running", "direction": "AtoB", "checkpoint": folder / "last.ckpt", "device": CPU}
    return export(network, images, folder / "export", backend=find(name).export, **facts)


def test_a_backend_of_another_package_is_loaded_where_it_is_trusted(outside, tmp_path, monkeypatch):
    network, images = nn.Conv2d(3, 3, 1).eval(), torch.rand(2, 3, 4, 4)
    match = r"weights\.pt needs the backend outside\.mine, which is not of p2p .*, set P2P_TRUST=outside\.mine in the"
    with pytest.raises(ValueError, match=match):
        exported(tmp_path, network, images, outside)
    monkeypatch.setenv("P2P_TRUST", "outside")
    assert exported(tmp_path, network, images, outside).program.backend == outside
    torch.testing.assert_close(load_engine(tmp_path / "export", device=CPU)(images), network(images).detach())
    (tmp_path / "fastest").mkdir()
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.01)
    options = {"batch_size": 2, "backends": [outside, "outside.none"], "device": "cpu"}
    rows = fastest.export(network, images, tmp_path / "fastest", **options).considered
    assert [row["verdict"] for row in rows] == ["kept", "No module named 'outside.none'"]


def test_a_backend_that_cannot_be_imported_any_more_is_one_sentence(outside, tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_TRUST", "outside")
    exported(tmp_path, nn.Conv2d(3, 3, 1).eval(), torch.rand(2, 3, 4, 4), outside)
    (tmp_path / "outside/mine.py").write_text("import nothing_like_that")
    del sys.modules[outside]
    with pytest.raises(ValueError, match=r"weights\.pt needs the backend outside\.mine, .* \(No module named 'no"):
        load_engine(tmp_path / "export", device=CPU)


def test_nothing_but_auto_knows_a_backend_by_its_module():
    """All else finds them by name, so that a new one is one file. A model repository holds what two of them write."""
    lines = {path: path.read_text() for path in (ROOT / "p2p").rglob("*.py")}
    knows = {path.name for path, text in lines.items() if "from p2p.deploy.backends" in text}
    assert knows == {"auto.py", "triton_repository.py"}
