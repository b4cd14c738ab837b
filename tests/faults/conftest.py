import io
import json
import os
import shutil
import subprocess
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import picture
from tests.started import Commands

SMALL = ["trainer=cpu", "image_size=32", "generator.width=8", "discriminator=pixel", "discriminator.width=8"]


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Commands in mounts of their own, for disks of any size."""
    unshare = ["unshare", "-m" if os.geteuid() == 0 else "-rm"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody but root mount file systems")
    commands = Commands(tmp_path_factory.mktemp("apart"), *unshare)
    yield commands
    commands.close()


def make_pairs(root, *, train, val):
    """A data set of A|B pairs, 64x32."""
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True)
        for index in range(count):
            picture(64, 32, seed=index).save(root / split / f"{index}.png")
    return root


def flaw(path, data):
    """What shows that a file is not whole, judged by its contents alone; None for a whole one, and for logs."""
    try:
        if path.suffix in (".ckpt", ".pt2"):
            return zipfile.ZipFile(io.BytesIO(data)).testzip()
        if path.suffix in (".png", ".jpg"):
            Image.open(io.BytesIO(data)).load()
        elif path.suffix == ".json":
            json.loads(data)
        elif path.name == "train.yaml" and "run_dir" not in OmegaConf.create(data.decode()):  # towards its end
            return "no record"
        elif path.suffix == ".html" and not data.rstrip().endswith(b"</html>"):
            return "no end"
    except Exception as error:  # of whatever library: it could not read the file
        return f"{type(error).__name__}: {error}"
    return None


class Reader:
    """Reads all files under folders again and again while the block runs, as a user with a viewer would.

    Args:
        folders: where, with all below them.
        judge: what is wrong with a file of that path and contents; None: nothing.
        pause_s: between two rounds.

    Attributes:
        reads: files read.
        wrong: for each file that once was not whole, why.
    """

    def __init__(self, *folders, judge=flaw, pause_s=0.01):
        self.reads, self.wrong = 0, {}
        self._folders, self._judge, self._pause_s = folders, judge, pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self):
        while not self._over.wait(self._pause_s):
            for path in files_in(*self._folders):
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                self.reads += 1
                if reason := self._judge(path, data):
                    self.wrong.setdefault(str(path), f"{len(data)} bytes: {reason}")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def files_in(*folders):
    """All files that have their names, which those that are being written have not."""
    for folder in folders:
        for where, _, names in os.walk(folder):
            yield from (Path(where, name) for name in names if not name.endswith(".partial"))


def partials_in(*folders):
    """All files that are being written, or were."""
    return [Path(where, name) for folder in folders for where, _, names in os.walk(folder) for name in names
            if ".partial" in name]  # fmt: skip


def listing(folder):
    """Names, times and sizes in a folder: what changes when a file is made, grows or gets another name."""
    try:
        return {(each.name, (stat := each.stat()).st_mtime_ns, stat.st_size) for each in os.scandir(folder)}
    except FileNotFoundError:
        return set()


@pytest.fixture
def elsewhere(commands):
    """A folder on another file system than the temporary folder of the commands."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == commands.folder.stat().st_dev:
        pytest.skip("there is no second file system, such as /dev/shm")
    with tempfile.TemporaryDirectory(prefix="p2p-test-", dir=shared) as name:
        yield Path(name)
