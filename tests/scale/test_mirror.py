"""data.root at a URL: the pairs are copied here once, whole, and anew when they have changed."""

from pathlib import Path

import pytest

import p2p
from p2p.data.mirror import local
from tests.scale.conftest import files

pytestmark = pytest.mark.scale


@pytest.fixture
def store(pair_folder, monkeypatch, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    for name, data in files(pair_folder).items():
        store.pipe_file(f"/pairs/{name}", data)
    store.pipe_file("/pairs/notes.txt", b"no image")
    yield store
    store.rm("/pairs", recursive=True)


def test_pairs_are_copied_once_and_anew_when_they_change(store, pair_folder, capsys):
    folder = local("memory://pairs")
    assert files(folder) == files(pair_folder)
    assert "7 images of memory://pairs are copied to" in capsys.readouterr().out
    assert local("memory://pairs") == folder and not capsys.readouterr().out
    store.pipe_file("/pairs/train/new.png", (pair_folder / "train/0.png").read_bytes())
    other = local("memory://pairs")
    assert other != folder and len(files(other)) == 8 and len(files(folder)) == 7


def test_a_copy_that_breaks_leaves_nothing(store, monkeypatch, tmp_path):
    read = store.cat_file
    monkeypatch.setattr(type(store), "cat_file", lambda self, path, **_: read(path) if "train" in path else 1 / 0)
    with pytest.raises(ValueError, match=r"data.root=memory://pairs cannot be read \(division by zero"):
        local("memory://pairs")
    assert not files(tmp_path / "cache")


def test_a_folder_without_an_image(store):
    with pytest.raises(ValueError, match=r"there is no image at data.root=memory://none"):
        local("memory://none")


def test_train_and_infer_by_pairs_of_a_store(store, tmp_path):
    small = ["image_size=32", "generator.width=8", "discriminator.width=8", "discriminator.layers=1", "epochs=1"]
    where = f"run_dir={tmp_path}/run"
    p2p.train([*small, where, "data=folder", "data.root=memory://pairs", "trainer=cpu"])
    p2p.export([where, "backend=exported_program", "device=cpu"])
    done = p2p.infer([where, "gallery=0", "device=cpu"])
    assert done.written == 3
    assert "memory://pairs" in Path(tmp_path / "run/train.yaml").read_text()
