"""pipeline=ray on a real Ray: the bytes of sequential, failures, and processes and machines that are lost."""

import csv
import functools
import os
import signal
import threading
import time

import pytest

from p2p.pipelines.ray import number_of_tasks, place
from tests.conftest import picture
from tests.scale.conftest import files, ray_processes

pytestmark = pytest.mark.scale


def outputs(folder):
    return {name: data for name, data in files(folder).items() if not name.startswith((".p2p", "failures"))}


def failed(folder):
    with (folder / "failures.csv").open(newline="") as file:
        return sorted(csv.reader(file))


def test_the_bytes_and_failures_of_sequential(infer, photos, tmp_path, capsys):
    """On a cluster that starts by itself, and twice: the second time only what is missing."""
    for name in ("sequential", "ray"):
        with pytest.raises(ValueError, match=r"1 of 25 images failed: cannot read .*bad.png: it is not an image"):
            infer(f"pipeline={name}", input=photos, output=tmp_path / name, batch_size=4)
    assert outputs(tmp_path / "ray") == outputs(tmp_path / "sequential")
    assert len(outputs(tmp_path / "ray")) == 24
    assert failed(tmp_path / "ray") == failed(tmp_path / "sequential")
    (photos / "bad.png").unlink()
    (tmp_path / "ray/01.png").unlink()
    capsys.readouterr()
    done = infer("pipeline=ray", input=photos, output=tmp_path / "ray", batch_size=4, skip_existing=True)
    assert (done.written, done.skipped) == (1, 23)
    assert outputs(tmp_path / "ray") == outputs(tmp_path / "sequential")
    said = capsys.readouterr()
    assert "1 image written" in said.out and "ray" not in said.err.lower()


def kill(kind):
    pid = ray_processes(kind)[0]
    os.kill(pid, signal.SIGKILL)
    return pid


LOST = {
    "a task's process": lambda cluster: kill("Map(load)"),
    "an engine": lambda cluster: kill("Translate"),
    "a machine": lambda cluster: cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False),
}


@pytest.mark.parametrize("what", LOST)
def test_what_is_lost_costs_no_image(infer, cluster, tmp_path, what):
    total, lost = 200, []
    folder, out = tmp_path / "many", tmp_path / "ray"
    folder.mkdir()
    for index in range(total):
        picture(320, 240, seed=index).save(folder / f"{index:03d}.png")

    def lose():
        """When the first outputs are there."""
        while not outputs(out):
            time.sleep(0.01)
        while not lost and len(outputs(out)) < total:
            try:
                LOST[what](cluster)
                lost.append(len(outputs(out)))
            except IndexError:  # noqa: PERF203 - no such process at the moment
                time.sleep(0.002)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        done = infer("pipeline=ray", f"pipeline.ray_address={cluster.address}", input=folder, output=out)
    finally:
        thread.join(30)
        if what == "a machine":
            cluster.add_node(num_cpus=2)
            cluster.wait_for_nodes()
    assert lost and lost[0] < total
    assert (done.written, done.skipped) == (total, 0)
    infer("pipeline=sequential", input=folder, output=tmp_path / "sequential")
    assert outputs(out) == outputs(tmp_path / "sequential")
    assert not [name for name in files(out) if "partial" in name]


def test_no_cluster_at_an_address_is_one_sentence(infer, photos, tmp_path, monkeypatch):
    services = "ray._private.services"  # which would find other tests' cluster
    monkeypatch.setattr(f"{services}.find_bootstrap_address", lambda temp_dir: None)
    monkeypatch.setattr(f"{services}.find_gcs_addresses", functools.cache(set))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        ValueError, match=r"pipeline.ray_address=auto finds no cluster on this machine: start it by ray"
    ):
        infer("pipeline=ray", "pipeline.ray_address=auto", input=photos, output=tmp_path / "out")
    with pytest.raises(ValueError, match=r"pipeline.ray_address=127.0.0.1:1 is no cluster"):
        infer("pipeline=ray", "pipeline.ray_address=127.0.0.1:1", input=photos, output=tmp_path / "out")


def test_ray_that_is_not_installed_is_one_sentence(infer, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("p2p.pipelines.ray.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package ray, .*: pip install 'ray\[data\]'"):
        infer("pipeline=ray", input=photos, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("setting", "why"), [("size=tile", "size=model"), ("devices=2", "pipeline.actors=2")])
def test_what_it_does_not_do_is_refused(infer, photos, tmp_path, setting, why):
    with pytest.raises(ValueError, match=why):
        infer("pipeline=ray", setting, "device=cpu", input=photos, output=tmp_path / "out")


def test_tasks_hold_whole_groups():
    for images, batch_size in ((1, 1), (25, 4), (1000, 32), (10_000, 7)):
        tasks = number_of_tasks(images, batch_size, image_bytes=3 * 256 * 256, cpus=2)
        assert 1 <= tasks <= -(-images // batch_size)
    assert number_of_tasks(1_000_000, 32, image_bytes=3 * 256 * 256, cpus=16) == -(-1_000_000 // 160)


CLUSTERS = {"CPU": 8.0, "GPU": 2.0, "node:10.0.0.1": 1.0, "node:10.0.0.2": 1.0, "node:__internal_head__": 1.0}


@pytest.mark.parametrize(
    ("device", "actors", "expected"),
    [("auto", None, ("cuda", 2)), ("cuda", 1, ("cuda", 1)), ("cpu", None, ("cpu", 2)), ("cpu", 7, ("cpu", 7))],
)
def test_where_engines_are(device, actors, expected):
    assert place(device, actors, CLUSTERS) == expected


@pytest.mark.parametrize(("device", "actors"), [("cuda", 3), ("cpu", 8)])
def test_what_a_cluster_does_not_have_is_refused(device, actors):
    with pytest.raises(ValueError, match="use"):
        place(device, actors, CLUSTERS)
