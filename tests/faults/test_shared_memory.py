"""/dev/shm that is small, as in containers, or full: training uses fewer loader processes, or none, and says so."""

import os
import subprocess
import sys

import pytest

from p2p.config.explain import explain
from p2p.data import shared_memory
from p2p.data.shared_memory import workers_that_fit
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

TRAIN = """
mount -t tmpfs -o size=8k tmpfs /dev/shm && cat /dev/zero > /dev/shm/full 2> /dev/null
exec {python} train.py name={name} image_size=64 batch_size=4 epochs=1 generator.width=4 discriminator.width=4 \
    discriminator.layers=1 trainer=cpu data.workers=2 data.train=val ~logger ~callbacks.samples
"""


def in_a_namespace_of_its_own(script):
    """Run with mounts that nobody else sees; skip where that is not allowed."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--user", "--map-root-user"]
    allowed = subprocess.run([*namespace, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True)
    if allowed.returncode:
        pytest.skip("this system lets no test mount a file system")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [*namespace, "sh", "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_training_does_without_shared_memory(tmp_path):
    """None of it is free, not a byte."""
    name = os.path.relpath(tmp_path, ROOT / "runs")
    done = in_a_namespace_of_its_own(TRAIN.format(python=sys.executable, name=name))
    assert done.returncode == 0, done.stderr
    assert "/dev/shm has 0 MB free, and 2 loader processes need 2 MB: data.workers=0 is used instead" in done.stdout
    assert (tmp_path / "checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize(("free_mb", "expected"), [(0, 0), (3, 0), (4, 1), (7, 2), (17, 7), (18, 8), (1000, 8)])
def test_as_many_loader_processes_as_there_is_room_for(free_mb, expected, tmp_path, monkeypatch, capsys):
    """Each has two batches of 1 MB ahead, and the training process two."""
    disk = type("Disk", (), {"f_bavail": free_mb, "f_frsize": 1_000_000})
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda folder: disk)
    assert workers_that_fit(8, batch_bytes=1_000_000, folder=tmp_path) == expected
    assert (f"data.workers={expected}" in capsys.readouterr().out) == (expected < 8)
    assert workers_that_fit(8, batch_bytes=1_000_000, processes=2, folder=tmp_path) <= expected
    assert workers_that_fit(0, batch_bytes=1_000_000, folder=tmp_path) == 0
    assert workers_that_fit(8, batch_bytes=1_000_000, folder=tmp_path / "not there") == 8


def test_a_loader_process_that_dies_is_one_sentence():
    error = RuntimeError(
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of"
        " shared memory. Please try to raise your shared memory limit."
    )
    assert explain(error, "train") == (
        "a loader process died (Bus error): the machine's memory or /dev/shm is full, use fewer data.workers or a"
        " smaller batch_size"
    )
    assert explain(RuntimeError("of ours"), "train") is None
