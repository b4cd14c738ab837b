"""Every disk that a command writes to is full or read-only, before or while it works: one sentence, whole files."""

import re
import time

import pytest

from tests.conftest import picture
from tests.faults.conftest import SMALL, files_in, flaw, make_pairs, partials_in

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def run(apart, tmp_path_factory):
    """A trained and exported run, and folders to mount disks on."""
    folder = tmp_path_factory.mktemp("run")
    make_pairs(folder / "pairs", train=8, val=2)
    for index in range(200):
        path = folder / f"images/{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        picture(32, 32, seed=index).save(path)
    apart.succeed("train.py", f"hydra.run.dir={folder / 'run'}", *training(folder), "epochs=1")
    apart.succeed("export.py", f"run_dir={folder / 'run'}", "cache_dir=null")
    (folder / "disk").mkdir()
    return folder


def training(folder):
    return [*SMALL, "data=folder", f"data.root={folder / 'pairs'}"]


@pytest.fixture
def mounted(apart):
    """Mount a disk of that size for one test; 0: one that is full."""
    points = []

    def mount(point, size):
        apart.shell(f"mount -t tmpfs -o size={size or '64k'} tmpfs {point}")
        points.append(point)
        if not size:
            apart.shell(f"head -c 100k /dev/zero > {point}/full 2> /dev/null || true")
        return apart.seen(point)

    yield mount
    for point in points:
        apart.shell(f"umount -l {point}")


def says(apart, path, *command, reason="No space left|disk is full", **variables):
    """Run a command that must end with one sentence about that path."""
    code, said = apart.run(*command, **variables)
    last = said.strip().splitlines()[-1]
    assert code == 1 and "Traceback" not in said, said
    assert last.startswith("error: ") and str(path) in last and re.search(reason, last), said


def only_whole_files(*folders):
    assert {str(path): reason for path in files_in(*folders) if (reason := flaw(path, path.read_bytes()))} == {}
    assert partials_in(*folders) == []


def whole(apart, *command, folder, **variables):
    """Run a command that must not care."""
    apart.succeed(*command, **variables)
    only_whole_files(folder)


def test_train_on_a_full_disk(apart, run, mounted):
    disk = mounted(run / "disk", 0)
    says(apart, run / "disk/run", "train.py", f"hydra.run.dir={run / 'disk/run'}", *training(run), "epochs=2")
    only_whole_files(disk / "run")


@pytest.mark.parametrize(("megabytes", "files"), [(2, 0), (5, 2)])
def test_train_fills_a_disk(apart, run, mounted, megabytes, files):
    """A checkpoint takes 3 MB, one for last.ckpt and best.ckpt after the first epoch, and another beside it next."""
    disk = mounted(run / "disk", f"{megabytes}m")
    says(apart, run / "disk/run", "train.py", f"hydra.run.dir={run / 'disk/run'}", *training(run), "epochs=3")
    only_whole_files(disk / "run")
    kept = sorted(path.name for path in files_in(disk / "run") if path.suffix == ".ckpt")
    assert len(kept) == files
    for name in kept:
        output = run / f"kept-{megabytes}-{name}"
        apart.succeed("export.py", f"run_dir={run / 'disk/run'}", f"ckpt_path={name[:-5]}", f"output={output}")


@pytest.mark.parametrize("point", ["tmp", "/dev/shm", "cache"])
@pytest.mark.parametrize("command", ["train.py", "export.py", "infer.py"])
def test_a_full_disk_that_a_command_can_do_without(apart, run, mounted, point, command):
    place = point if point.startswith("/") else run / point
    if place != point:
        place.mkdir(exist_ok=True)
    mounted(place, 0)
    variables = {"tmp": {"TMPDIR": str(place)}, "cache": {"XDG_CACHE_HOME": str(place)}}.get(point, {})
    folder = run / f"{command}-without-{point.strip('/').replace('/', '-')}"
    arguments = {
        "train.py": [f"hydra.run.dir={folder}", *training(run), "epochs=1"],
        "export.py": [f"run_dir={run / 'run'}", f"output={folder}"],
        "infer.py": [f"run_dir={run / 'run'}", f"input={run / 'images'}", f"output={folder}", *OVERLAP],
    }[command]
    whole(apart, command, *arguments, folder=folder, **variables)


OVERLAP = ["+pipeline=overlap", "pipeline.workers=2", "batch_size=4"]


@pytest.mark.parametrize("size", [0, "500k"])
def test_export_to_a_full_disk(apart, run, mounted, size):
    disk = mounted(run / "disk", size)
    says(apart, run / "disk/export", "export.py", f"run_dir={run / 'run'}", f"output={run / 'disk/export'}")
    only_whole_files(disk / "export")


def test_export_over_an_artifact_on_a_disk_that_has_room_for_one(apart, run, mounted):
    disk = mounted(run / "disk", "1900k")  # a program takes 1.1 MB
    command = ["export.py", f"run_dir={run / 'run'}", f"output={run / 'disk/export'}"]
    apart.succeed(*command)
    before = {path.name: path.read_bytes() for path in files_in(disk)}
    says(apart, run / "disk/export", *command)
    assert {path.name: path.read_bytes() for path in files_in(disk)} == before
    apart.succeed("infer.py", f"run_dir={run / 'run'}", f"export={run / 'disk/export'}", "gallery=0")


def test_a_build_cache_on_a_disk_that_fills(apart, run, mounted):
    (run / "cache").mkdir(exist_ok=True)
    disk = mounted(run / "cache", "1900k")
    command = ["export.py", f"run_dir={run / 'run'}", f"output={run / 'cached'}"]
    for images in (1, 2):
        apart.succeed(*command, f"images={images}", XDG_CACHE_HOME=str(run / "cache"))
        only_whole_files(disk, run / "cached")


@pytest.mark.parametrize("pipeline", [[], OVERLAP])
@pytest.mark.parametrize("size", [0, "128k"])
def test_infer_into_a_full_disk(apart, run, mounted, size, pipeline):
    disk = mounted(run / "disk", size)
    command = ["infer.py", f"run_dir={run / 'run'}", f"input={run / 'images'}", f"output={run / 'disk/images'}"]
    says(apart, run / "disk/images", *command, *pipeline)
    only_whole_files(disk / "images")
    assert size == 0 or len(list(files_in(disk))) > 10


def test_infer_has_no_room_for_its_report(apart, run, mounted):
    disk = mounted(run / "disk", "4m")
    apart.shell(f"cp -r {run / 'run/export'} {run / 'disk'}")
    apart.shell(f"head -c 4m /dev/zero > {run / 'disk/full'} 2> /dev/null || true")
    output = run / "reported"
    command = ["infer.py", f"run_dir={run / 'disk'}", f"input={run / 'images'}", f"output={output}", *OVERLAP]
    code, said = apart.run(*command)
    assert code in (0, 1) and "Traceback" not in said and f"200 images written to {output}" in said, said
    assert str(run / "disk") in said and re.search("No space left|disk is full", said), said
    only_whole_files(output, disk / "export")
    assert not list(disk.glob("*.png")) + list(disk.glob("*.html"))


def read_only(apart, point):
    apart.shell(f"mount -o remount,bind,ro {point}")


@pytest.mark.parametrize("command", ["train.py", "export.py", "infer.py"])
def test_a_read_only_disk(apart, run, mounted, command):
    disk, target = mounted(run / "disk", "8m"), run / "disk/target"
    read_only(apart, run / "disk")
    arguments = {
        "train.py": [f"hydra.run.dir={target}", *training(run), "epochs=2"],
        "export.py": [f"run_dir={run / 'run'}", f"output={target}"],
        "infer.py": [f"run_dir={run / 'run'}", f"input={run / 'images'}", f"output={target}", *OVERLAP],
    }[command]
    says(apart, target, command, *arguments, reason="Read-only file system|may not be written to")
    assert list(disk.iterdir()) == []


def test_a_disk_that_becomes_read_only(apart, run, mounted):
    """While infer.py works: train.py has its lock open, and with that Linux lets nobody make its disk read-only."""
    disk, target = mounted(run / "disk", "64m"), run / "disk/target"
    command = ["infer.py", f"run_dir={run / 'run'}", f"input={run / 'images'}", f"output={target}"]
    life = apart.start(*command, "restore_size=true")
    while sum(path.suffix == ".png" for path in files_in(disk / "target")) < 2:
        assert life.ended() is None, life.said()
        time.sleep(0.002)
    read_only_at_last(apart, run / "disk", life)
    assert life.wait() == 1 and "Traceback" not in life.said(), life.said()
    last = life.said().strip().splitlines()[-1]
    assert last.startswith("error: ") and str(target) in last and "Read-only file system" in last, last
    assert {path.name for path in files_in(disk) if flaw(path, path.read_bytes())} == set()


def read_only_at_last(apart, point, life):
    """Linux refuses while a file is open for writing: try until it is not."""
    while life.ended() is None and apart.ask({"shell": f"mount -o remount,bind,ro {point} 2> /dev/null"}):
        pass
