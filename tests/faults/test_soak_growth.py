"""200,000 images through the overlapped pipeline: memory, descriptors, processes and shared memory do not grow."""

import json
import os
import statistics
import time
from pathlib import Path

import pytest

from tests.conftest import picture
from tests.faults.conftest import SMALL, make_pairs, partials_in
from tests.started import processes_of

pytestmark = pytest.mark.soak

IMAGES = int(os.environ.get("P2P_IMAGES", 200_000))
TOLERANCE_MB = 4.0  # of all memory, main process and workers each; a leak of 50 bytes an image is 5 MB


def sample(commands, main):
    """What the main process and its workers hold now."""
    row = {"main_mb": 0.0, "workers_mb": 0.0, "shared_mb": 0.0, "descriptors": 0, "memfds": 0, "processes": 0}
    for pid in processes_of(commands):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
        row["main_mb" if pid == main else "workers_mb"] += int(status["RssAnon"].split()[0]) / 1024
        row["shared_mb"] = max(row["shared_mb"], int(status["RssShmem"].split()[0]) / 1024)
        row["descriptors"] += len(links)
        row["memfds"] += sum("memfd:" in link for link in links)
        row["processes"] += 1
    shm = os.statvfs(commands.seen("/dev/shm"))
    row["dev_shm_mb"] = (shm.f_blocks - shm.f_bfree) * shm.f_frsize / 2**20
    return row


def test_nothing_grows(apart, tmp_path):
    apart.shell("mount -t tmpfs -o size=64m tmpfs /dev/shm")
    run, root = tmp_path / "run", make_pairs(tmp_path / "pairs", train=8, val=2)
    apart.succeed("train.py", f"hydra.run.dir={run}", *SMALL, "data=folder", f"data.root={root}", "epochs=1")
    apart.succeed("export.py", f"run_dir={run}")
    for index in range(16):
        picture(32, 32, seed=index).save(tmp_path / f"{index}.png")
    for index in range(IMAGES):
        link = tmp_path / f"images/{index // 1000:03d}/{index % 1000:03d}.png"
        if index % 1000 == 0:
            link.parent.mkdir(parents=True)
        os.link(tmp_path / f"{index % 16}.png", link)
    command = ["infer.py", f"run_dir={run}", f"input={tmp_path / 'images'}", "batch_size=32"]
    began = time.monotonic()
    life = apart.start(*command, "+pipeline=overlap", "pipeline.workers=2")
    rows = []
    while life.ended() is None:
        try:
            made = 1000 * len(list((run / "images").iterdir()))
            rows.append({"images": made, "seconds": round(time.monotonic() - began, 1)} | sample(apart, life.pid))
        except (FileNotFoundError, ProcessLookupError):  # a process has ended meanwhile, or nothing is there yet
            pass
        time.sleep(0.5)
    assert life.ended() == 0, life.said()
    assert f"{IMAGES} images written" in life.said() and partials_in(run) == []
    assert sum(not name.startswith(".") for _, _, names in os.walk(run / "images") for name in names) == IMAGES

    second = [row for row in rows if 0.25 * IMAGES <= row["images"] < 0.5 * IMAGES]
    last = [row for row in rows if 0.75 * IMAGES <= row["images"] < IMAGES]
    medians = {
        name: [round(statistics.median(row[name] for row in quarter), 2) for quarter in (second, last)]
        for name in rows[0]
        if name not in ("images", "seconds")
    }
    print(f"{IMAGES} images in {time.monotonic() - began:.0f} s, second and last quarter: {json.dumps(medians)}")
    for name, (early, late) in medians.items():
        assert late - early <= (TOLERANCE_MB if name.endswith("_mb") else 0), (name, early, late)
