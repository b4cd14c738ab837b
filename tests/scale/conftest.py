"""What the tests of Ray, of shards and of object stores share: a small run, images, and a cluster of two machines."""

import os
from pathlib import Path

import pytest

import p2p
from p2p.pipelines.ray import SETTINGS
from tests.conftest import picture
from tests.pipelines.conftest import export_folder, exported, files  # noqa: F401


@pytest.fixture
def photos(tmp_path):
    """24 images in two folders, of several formats, and one that cannot be read."""
    folder = tmp_path / "photos"
    for index in range(24):
        path = folder / ("deep/er" if index % 3 == 0 else ".") / f"{index:02d}{('.png', '.jpg', '.webp')[index % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40 + index, 50, seed=index).save(path)
    (folder / "bad.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def infer(export_folder, tmp_path):  # noqa: F811
    """`infer("pipeline=ray", input=..., output=...)`: what the command returns."""

    def run(*overrides, **options):
        given = {"export": export_folder, "run_dir": tmp_path / "run", "gallery": 0, "batch_size": 2} | options
        return p2p.infer([*overrides, *(f"{key}={value}" for key, value in given.items())])

    return run


@pytest.fixture(scope="session")
def cluster():
    """A cluster of two machines, each a raylet of its own on this one; `address` is for pipeline.ray_address."""
    os.environ.update(SETTINGS)
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    made.add_node(num_cpus=2)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def ray_processes(kind):
    """The ids of Ray's worker processes whose title has that in it, such as MapWorker: an engine's actor."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if title.startswith("ray::") and kind in title and _ours(int(entry.name)):
                found.append(int(entry.name))
    return found


def _ours(pid):
    """Whether a process descends from this one; others may run Ray on this machine, too."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
