"""What is a URL, and that local paths import nothing of those; objects of stores: tests/scale."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2p.data.lists import listed
from p2p.data.mirror import local
from p2p.data.pairs import find_inputs
from p2p.system.urls import is_url, located


@pytest.mark.parametrize(
    "text", ["s3://bucket/x.png", "memory://photos", "https://host/a b.jpg", "simplecache::s3://b"]
)
def test_urls(text):
    assert is_url(text) == ("::" not in text)


@pytest.mark.parametrize(
    "text", ["photos", "/photos/x.png", "c:/photos", "s3:/photos", "a b://c", "photos//x", "@s3://b/x"]
)
def test_paths(text):
    assert not is_url(text) and not is_url(Path(text))
    assert located(text) == Path(text) == local(text)


def test_a_file_by_its_url_is_a_path():
    assert located("file:///photos/x.png") == Path("/photos/x.png")


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ImportError('SFTPFileSystem requires "paramiko" to be installed'), "install it"),
        (ModuleNotFoundError("No module named 'upath'", name="upath"), "pip install universal-pathlib"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, error, hint):
    def missing(*_, **__):
        raise error

    monkeypatch.setitem(sys.modules, "upath", SimpleNamespace(UPath=missing))
    with pytest.raises(ValueError, match=r"^sftp://host/x needs a package that is not installed \(.*\): ") as raised:
        located("sftp://host/x")
    assert str(raised.value).endswith(f": {hint}")


def test_local_paths_import_nothing_of_stores(tmp_path):
    (tmp_path / "x.png").touch()
    code = (
        "import sys; from p2p.commands import infer; from p2p.data.pairs import find_inputs;"
        f"find_inputs({str(tmp_path)!r}); print({{'upath', 'fsspec', 's3fs', 'ray'}} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_list_of_files_and_urls_is_refused(tmp_path):
    pytest.importorskip("upath")
    (tmp_path / "x.png").touch()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/x.png\nmemory://photos/y.png\n")
    with pytest.raises(ValueError, match="has files of several kinds of places: make a list of each"):
        listed(f"@{tmp_path}/list.txt")


def test_no_name_of_a_store_leads_out_of_a_folder_here(tmp_path, monkeypatch):
    pytest.importorskip("upath")
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    for name in ("a.png", "../../out.png", "/etc/out.png", "b/.hidden.png"):
        store.pipe_file(f"/names/{name}", b"")
    assert [pair.name for pair in find_inputs("memory://names")] == ["a"]
    folder = local("memory://names")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [folder / "a.png"]
    (tmp_path / "list.txt").write_text("memory://names/a.png\nmemory://names/../../out.png\n")
    with pytest.raises(ValueError, match=r"names/\.\./\.\./out.png has \.\. in it"):
        find_inputs(f"@{tmp_path}/list.txt")
