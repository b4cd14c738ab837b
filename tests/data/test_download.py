"""Against a web server in this process that can cut its answers short."""

import errno
import hashlib
import io
import shutil
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from p2p.data import download
from p2p.data.datamodule import PairedImages
from p2p.data.download import fetch_archive
from p2p.data.transforms.torchvision import Torchvision
from tests.conftest import picture


def archive(members, *, folder="tiny/"):
    """A .tar.gz of {name: bytes}, or of TarInfo as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(f"{folder}{name}")
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def pairs():
    members = {}
    for split in ("train", "val"):
        buffer = io.BytesIO()
        picture(64, 32).save(buffer, "PNG")
        members[f"{split}/0.png"] = buffer.getvalue()
    return archive(members)


@pytest.fixture
def server(monkeypatch):
    """Serves `files`; knows ranges unless told not to; ends each answer after the next of `cuts` bytes."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = SimpleNamespace(files={}, cuts=[], ranges=True, requests=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            data, asked = state.files.get(self.path), self.headers.get("Range")
            state.requests.append(asked)
            if data is None:
                return self.send_error(404)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return None
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            stop = start + state.cuts.pop(0) if state.cuts else len(data)
            self.wfile.write(data[start:stop])

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}/sets/"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def fetch(server, root, data=None, **options):
    if data is not None:
        server.files["/sets/tiny.tar.gz"] = data
    fetch_archive(root, base_url=server.url, archive="tiny.tar.gz", **options)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_datamodule_fetches_what_is_missing_once(server, tmp_path):
    server.files["/sets/tiny.tar.gz"] = pairs()
    source = partial(fetch_archive, base_url=server.url, archive="tiny.tar.gz")
    for _ in range(2):
        data = PairedImages(root=str(tmp_path / "data/tiny"), transform=Torchvision(image_size=32), source=source)
        data.prepare_data()
        assert data.dataset("val")[0].input_NCHW.shape == (1, 3, 32, 32)
    assert server.requests == [None]
    assert left(tmp_path / "data") == ["tiny"]


def test_without_prepare_data_it_is_fetched_too(server, tmp_path):
    server.files["/sets/tiny.tar.gz"] = pairs()
    source = partial(fetch_archive, base_url=server.url, archive="tiny.tar.gz")
    data = PairedImages(root=str(tmp_path / "tiny"), transform=Torchvision(image_size=32), source=source)
    assert len(data.dataset("train")) == 1


def test_several_top_folders_stay_below_root(server, tmp_path):
    fetch(server, tmp_path / "tiny", archive({"train/a.txt": b"1", "val/a.txt": b"2"}, folder=""))
    assert left(tmp_path / "tiny") == ["train", "val"]


def test_a_connection_that_is_cut_goes_on_where_it_stopped(server, tmp_path):
    data = pairs()
    server.cuts = [100, 50]
    fetch(server, tmp_path / "tiny", data, sha256=hashlib.sha256(data).hexdigest().upper())
    assert server.requests == [None, "bytes=100-", "bytes=150-"]
    assert left(tmp_path / "tiny") == ["train", "val"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_later_call_goes_on_where_the_one_before_gave_up(server, tmp_path, ranges):
    data = pairs()
    server.ranges, server.cuts = ranges, [100]
    with pytest.raises(ValueError, match=r"cannot be downloaded \(the connection ended at 100 of [\d,]+ bytes"):
        fetch(server, tmp_path / "tiny", data, attempts=1)
    assert left(tmp_path) == ["tiny.tar.gz.partial"]
    fetch(server, tmp_path / "tiny")
    assert server.requests == [None, "bytes=100-"]
    assert left(tmp_path) == ["tiny"]


def test_a_partial_file_that_is_complete_or_too_long(server, tmp_path):
    data = pairs()
    for number, content in enumerate((data, data + b"x")):
        (tmp_path / f"{number}.tar.gz.partial").write_bytes(content)
        fetch(server, tmp_path / str(number), data)
        assert left(tmp_path / str(number)) == ["train", "val"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-30], lambda data: data[:-6] + b"\0\0" + data[-4:], lambda _: b"x"]
)
def test_a_damaged_archive_is_deleted(server, tmp_path, damage):
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz is damaged and was deleted, try again"):
        fetch(server, tmp_path / "tiny", damage(pairs()))
    assert left(tmp_path) == []


def test_another_hash_is_refused(server, tmp_path):
    with pytest.raises(ValueError, match=r"is not the archive that data\.source\.sha256 describes"):
        fetch(server, tmp_path / "tiny", pairs(), sha256="0" * 64)
    assert left(tmp_path) == []


def link(kind, name="tiny/link", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


EVIL = {
    "absolute": {"/tmp/p2p-evil": b"x"},
    "parent": {"a/../../../evil": b"x"},
    "windows": {"..\\evil": b"x"},
    "drive": {"C:\\evil": b"x"},
    "symlink": {"": link(tarfile.SYMTYPE)},
    "hardlink": {"": link(tarfile.LNKTYPE)},
    "device": {"": link(tarfile.CHRTYPE)},
}


@pytest.mark.parametrize("kind", EVIL)
@pytest.mark.parametrize("filtered", [True, False])
def test_members_that_leave_the_folder_are_refused(server, tmp_path, monkeypatch, kind, filtered):
    if not filtered:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)  # as in the first releases of Python 3.10
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="is not a plain file inside it"):
        fetch(server, tmp_path / "data/tiny", archive({"good.txt": b"1"} | EVIL[kind], folder=""))
    assert left(tmp_path) == ["data"]
    assert left(tmp_path / "data") == ["tiny.tar.gz"]


def test_unpacking_without_tarfiles_filter(server, tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    fetch(server, tmp_path / "tiny", pairs())
    assert left(tmp_path / "tiny") == ["train", "val"]


def test_no_such_file_and_no_server(server, tmp_path):
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz cannot be downloaded: the server says 404 Not Found"):
        fetch(server, tmp_path / "tiny")
    with pytest.raises(ValueError, match=r"cannot be downloaded \(.*refused\): look at your connection and try again"):
        fetch_archive(tmp_path / "tiny", base_url="http://127.0.0.1:9", archive="tiny.tar.gz")
    assert left(tmp_path) == []


def test_a_full_disk(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(ValueError, match=r"the disk of .* is full: .* needs [\d,]+ bytes, and 10 are free"):
            fetch(server, tmp_path / "tiny", pairs())

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(ValueError, match=r"the disk of .* is full: make room"):
        fetch(server, tmp_path / "tiny")
    assert shutil.disk_usage(tmp_path).free
    assert left(tmp_path) == ["tiny.tar.gz"]  # whole: only the unpacking is done again
