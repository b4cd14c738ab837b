"""Several devices on one list of images: two real processes on the CPU, and threads in the place of processes."""

import csv
import os
import signal
import subprocess
import threading
import time
from functools import partial
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest

import p2p
from p2p.data.pairs import Pair, Source
from p2p.deploy.sizes import Sizes
from p2p.pipelines import device_processes, one_of_several, row_files, several
from p2p.pipelines.device_processes import Device
from p2p.pipelines.messages import Broken
from p2p.pipelines.one_of_several import FailedImage, Idle, Lost, Pulse, Said
from p2p.pipelines.outcome import Outcome
from p2p.pipelines.several import Work
from p2p.pipelines.share import Granted, Queue, Want
from p2p.profiling.clock import Clock
from p2p.system import cores, device, gpus
from tests.conftest import picture
from tests.pipelines.conftest import children, exported, files

PAIRS = [Pair(f"{number:03d}", Source(f"{number:03d}.png")) for number in range(101)]


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed(export_folder, tmp_path, capsys):
    """The files of one process, each failure once, one table; the images of the one that dies are the other's."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(250):
        picture(60, 50, seed=number % 7).save(folder / f"{number:03d}.png")
    for number in (7, 249):
        (folder / f"{number:03d}.png").write_bytes(b"broken")
    settings = [
        f"export={export_folder}",
        f"input={folder}",
        f"run_dir={tmp_path}/run",
        "gallery=2",
        "batch_size=4",
        "device=cpu",
    ]
    outputs = {}
    for name, *how in (("one", "pipeline=sequential"), ("two", "pipeline=overlap", "devices=2", "pipeline.workers=1")):
        killer = threading.Thread(target=kill_one, args=(tmp_path / name, before := children(os.getpid())))
        if name == "two":
            killer.start()
        with pytest.raises(ValueError, match=r"^2 of 250 images failed: .*007.png: it is not an image"):
            p2p.infer([*settings, f"output={tmp_path}/{name}", *how])
        outputs[name] = {path: data for path, data in files(tmp_path / name).items() if path.endswith("png")}
        with (tmp_path / name / "failures.csv").open() as file:
            assert sorted(row["path"][-7:] for row in csv.DictReader(file)) == ["007.png", "249.png"]
    killer.join()
    assert len(outputs["one"]) == 248 and outputs["two"] == outputs["one"]
    out = capsys.readouterr().out
    assert "is lost (its process was ended by SIGKILL, as where memory ran out): the others continue" in out
    assert out.count("248 images written") == out.count("┏") == 2  # tables
    assert children(os.getpid()) <= before


@pytest.fixture(scope="module")
def export_of_any_size(tmp_path_factory):
    return exported(tmp_path_factory, stride=32, sizes=Sizes([32, 32], [32, 32], [128, 128], 32))


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param("input", marks=pytest.mark.soak), "tile"])
def test_two_processes_at_the_inputs_sizes(export_of_any_size, tmp_path, capsys, monkeypatch, size):
    """The same groups as in one process, also if one of two is killed; large TIFF files last, each by one of them."""
    monkeypatch.setattr(row_files, "LARGE", 9000)  # 100x90 and more
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(60):
        picture(30 + number % 9 * 8, 40, seed=number).save(folder / f"{number:02d}.png")
    for number in range(6):
        picture(100 + number, 90, seed=number).save(folder / f"large{number}.tif")
    (folder / "07.png").write_bytes(b"broken")
    (folder / "large5.tif").write_bytes((folder / "large5.tif").read_bytes()[:-9000])  # its header is whole
    settings = [f"export={export_of_any_size}", f"input={folder}", f"run_dir={tmp_path}/run", "gallery=0"]
    settings += ["batch_size=4", "device=cpu", "codec.format=tiff", f"size={size}"]
    outputs = {}
    for name, *how in (("one", "pipeline=sequential"), ("two", "pipeline=overlap", "devices=2", "pipeline.workers=1")):
        before = children(os.getpid())
        killer = threading.Thread(target=kill_one, args=(tmp_path / name, before, "*.tiff"))
        if name == "two" and size == "tile":
            killer.start()
        with pytest.raises(ValueError, match=r"^2 of 66 images failed: "):
            p2p.infer([*settings, f"output={tmp_path}/{name}", *how])
        outputs[name] = {path: data for path, data in files(tmp_path / name).items() if path.endswith("tiff")}
        with (tmp_path / name / "failures.csv").open() as file:
            assert sorted(row["path"].rpartition("/")[2] for row in csv.DictReader(file)) == ["07.png", "large5.tif"]
    assert len(outputs["one"]) == 64 and outputs["two"] == outputs["one"]
    assert not [*(tmp_path / "two").glob("*.partial")]
    out = capsys.readouterr().out
    assert ("ended by SIGKILL" in out) == (size == "tile") and out.count("64 images written") == out.count("┏") == 2


def kill_one(folder, before, pattern="*.png"):
    deadline = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < 20 and time.monotonic() < deadline:
        time.sleep(0.005)
    (folder / ".p2p-dead.partial").touch()  # as it may leave a file that it was writing
    os.kill(min(children(os.getpid()) - before), signal.SIGKILL)


@pytest.fixture
def work():
    """`work(*behaviours, pairs)`: run a list of images by threads that behave like that; returns what became of it."""

    def run(*behaviours, pairs=PAIRS):
        marks, devices, threads = np.zeros(len(pairs), np.uint8), [], []
        for place, behave in enumerate(behaviours):
            here, there = Pipe()
            process = SimpleNamespace(terminate=there.close, kill=lambda: None, wait=lambda _: -9, returncode=-9)
            devices.append(Device(f"cuda:{place}", "cuda:0", here, process))
            share = Granted(there, marks, devices=len(behaviours))
            threads.append(threading.Thread(target=in_thread, args=(behave, share, there)))
        outcome, found = Outcome(), []
        outcome.on_failure = lambda pair, *failure: found.append((pair.name, *failure))
        outcome.on_image = lambda: found.append(None)
        work = Work(pairs, devices, outcome, marks=SimpleNamespace(array=marks))
        for thread in threads:
            thread.start()
        try:
            work.until_done()
            measured = work.measured()
        finally:
            for each in devices:
                each.connection.close()
            for thread in threads:
                thread.join()
        return SimpleNamespace(measured=measured, found=found, marks=marks)

    return run


def in_thread(behave, share, connection):
    try:
        behave(share, connection)
    except (EOFError, OSError):
        pass
    finally:
        connection.close()


def translates(slot_size=4, upto=None, ends=None, seen=None, fails=()):
    """What a device does, which gets lost after so many slots, or not."""

    def behave(share, connection):
        slots = 0
        while True:
            for group in share.groups(np.arange(len(PAIRS)), range(0, len(PAIRS), slot_size)):
                start = group[0]
                if slots == upto:
                    if ends is not None:
                        connection.send(ends)
                    return
                slots += 1
                assert start % slot_size == 0 and len(group) == min(slot_size, len(PAIRS) - start)
                if seen is not None:
                    seen.append(start)
                for number in set(range(start, start + slot_size)).intersection(fails):
                    connection.send(FailedImage(PAIRS[number].name, "decode", "broken"))
                time.sleep(0.001)
                share.done(group)
            connection.send(Idle())
            if not connection.recv():
                connection.send("measured")
                return

    return behave


def test_every_image_is_one_devices(work):
    seen = [[], []]
    done = work(*(translates(seen=each, fails=[5, 100]) for each in seen))
    assert sorted(seen[0] + seen[1]) == list(range(0, 101, 4)) and all(seen)
    assert done.measured == {"cuda:0": "measured", "cuda:1": "measured"}
    assert sorted(filter(None, done.found)) == [("005", "decode", "broken"), ("100", "decode", "broken")]
    assert done.found.count(None) == 101  # on the bar


@pytest.mark.parametrize("ends", [None, Lost("the GPU failed: an illegal memory access")])
def test_a_device_that_is_lost_leaves_its_share(work, capsys, ends):
    """Also to one that had nothing more to do; failures that both find count once."""
    done = work(translates(upto=3, ends=ends, fails=range(101)), translates(fails=range(101)))
    assert done.marks.all() and list(done.measured) == ["cuda:1"]
    assert len(list(filter(None, done.found))) == 101
    why = "an illegal memory access" if ends else "its process was ended by SIGKILL, as where memory ran out"
    assert f"{why}): the others continue, and translate its last " in capsys.readouterr().out


def test_the_heir_may_be_idle_already(work):
    def dies_late(share, connection):
        next(share.groups(np.arange(len(PAIRS)), range(0, len(PAIRS), 4)))
        time.sleep(0.3)

    assert work(dies_late, translates()).marks.all()


def test_a_device_that_hangs_leaves_its_share(work, capsys, monkeypatch):
    """It has images in hand, ends not, and says nothing; also if another one is idle, and if no other one is left."""
    monkeypatch.setattr(several, "SILENCE", 5)

    def hangs(share, connection):
        share.done(next(share.groups(np.arange(len(PAIRS)), range(0, len(PAIRS), 4))))
        while True:
            connection.recv()

    done = work(hangs, translates())
    assert done.marks.all() and list(done.measured) == ["cuda:1"]
    assert "cuda:0 is lost (it hangs, and has done nothing for " in (out := capsys.readouterr().out)
    assert "): the others continue, and translate its last " in out
    with pytest.raises(
        ValueError, match=r"cuda:0 is lost \(it hangs, .*no other device is left: of 101 images 97 are missing"
    ):
        work(hangs)


def test_a_device_that_hangs_at_the_end_is_not_waited_for(work, capsys, monkeypatch):
    """All images are done: it does not say that it waits, or not what it has measured."""
    monkeypatch.setattr(several, "END_S", 0.3)

    def hangs_at_the_end(share, connection, *, says=()):
        for group in share.groups(np.arange(len(PAIRS)), range(0, len(PAIRS), 4)):
            share.done(group)
        for message in says:
            connection.send(message)
        while True:
            connection.recv()

    for says in ((), [Idle()]):
        done = work(partial(hangs_at_the_end, says=says), translates())
        assert done.marks.all() and list(done.measured) == ["cuda:1"]
        assert capsys.readouterr().out.startswith("cuda:0 hangs, and is ended: all images are done")


def test_a_process_that_cannot_be_killed_is_left(monkeypatch):
    """As one in uninterruptible sleep, in a driver."""
    monkeypatch.setattr(device_processes, "PATIENCE_S", 0.01)

    def wait(seconds):
        raise subprocess.TimeoutExpired("", seconds)

    here, there = Pipe()
    killed = []
    device_processes.end([Device("cuda:0", "cuda:0", here, SimpleNamespace(wait=wait, kill=lambda: killed.append(1)))])
    assert killed and there.poll()


def test_one_that_is_lost_with_nothing_in_hand_leaves_nothing(work, capsys):
    """So the line names no "last 0 images"."""

    def finishes_and_dies(share, connection):
        connection.send(Want(4))
        share.done(np.arange(*connection.recv()))
        connection.send(Lost("the GPU failed: unspecified launch failure"))

    def waits_for_that(share, connection):
        time.sleep(0.2)
        translates()(share, connection)

    assert work(finishes_and_dies, waits_for_that).marks.all()
    said = capsys.readouterr().out
    assert said == "cuda:0 is lost (the GPU failed: unspecified launch failure): the others continue\n"


def test_what_is_missing_is_named_when_all_are_lost(work):
    lost = Lost("the GPU's memory is full")
    with pytest.raises(
        ValueError, match=r"^cuda:\d is lost \(the GPU's memory is full\), and no other device is left: "
    ) as e:
        work(translates(upto=2, ends=lost), translates(upto=2, ends=lost))
    assert ": of 101 images 85 are missing, 0" in str(e.value) and "skip_existing=true" in str(e.value)


def test_a_device_that_is_lost_when_all_is_done_loses_nothing(work, capsys):
    def dies_at_the_end(share, connection):
        for group in share.groups(np.arange(len(PAIRS)), range(0, len(PAIRS), 4)):
            share.done(group)

    done = work(dies_at_the_end)
    assert done.marks.all() and done.measured == {} and capsys.readouterr().out == ""


def test_what_concerns_all_ends_the_run(work, capsys):
    def fills_the_disk(share, connection):
        connection.send(Said("codec: fast"))
        connection.send(Said("codec: fast"))
        connection.send(Broken(OSError(28, "No space left on device"), "trace"))
        connection.recv()

    with pytest.raises(OSError, match="No space left"):
        work(fills_the_disk, translates())
    assert capsys.readouterr().out == "codec: fast\n"


def test_a_device_that_comes_too_late_is_not_waited_for(work):
    """Of few images one device may be done before the others have imported torch."""
    begin = time.monotonic()
    done = work(translates(), lambda share, connection: connection.poll(20))
    assert done.marks.all() and list(done.measured) == ["cuda:0"] and time.monotonic() - begin < 10


def test_grants_get_smaller_and_lost_slots_come_whole():
    starts = range(0, 1003, 4)
    queue, marks = Queue(1003, devices=2), np.zeros(1003, np.uint8)
    grants = []
    while grant := queue.take(starts):
        grants.append(grant)
    assert [first for first, _ in grants[1:]] == [stop for _, stop in grants[:-1]] and grants[-1][1] == 1003
    sizes = [stop - first for first, stop in grants]
    assert sizes[0] == 32 and sizes[-1] == 3 and sorted(sizes, reverse=True) == sizes
    marks[:5] = 1
    assert queue.give_back(grants[:1], starts=starts, marks=marks) == 28
    assert queue.take(starts) == (4, 8)


def test_planned_groups_and_large_images_are_asked_for_apart():
    starts, marks = [0, 3, 4, 8, 9, 10], np.zeros(11, np.uint8)  # the last two images are large
    queue = Queue(11, devices=2, large=9)
    taken = [queue.take(starts), queue.take(starts, large=True), *(queue.take(starts) for _ in range(4))]
    assert taken == [(0, 3), (9, 10), (3, 4), (4, 8), (8, 9), None]
    marks[:2] = marks[4:8] = 1
    assert queue.give_back([(0, 8), (9, 10)], starts=starts, marks=marks) == 5
    taken = [queue.take(starts) for _ in range(3)] + [queue.take(starts, large=True) for _ in range(3)]
    assert taken == [(0, 3), (3, 4), None, (10, 11), (9, 10), None]


def test_a_device_that_is_at_work_on_one_image_for_long_is_alive(work, capsys, monkeypatch):
    monkeypatch.setattr(several, "SILENCE", 5)
    monkeypatch.setattr(one_of_several, "PULSE_S", 0.1)

    def is_slow(share, connection):
        pulse = Pulse(connection)
        for group in share.groups(np.arange(len(PAIRS)), range(0, len(PAIRS), 4)):
            for _ in range(20 if group[0] == 0 else 0):
                time.sleep(0.05)
                pulse()
            share.done(group)
        connection.send(Idle())
        connection.send("measured" if not connection.recv() else None)

    assert work(is_slow).measured == {"cuda:0": "measured"} and not capsys.readouterr().out


def test_one_table_of_all():
    clocks = [Clock(), Clock(), Clock()]
    for place, clock in enumerate(clocks[1:]):
        clock.merge([("e2e", "main", 10**9 * (1 + place), 10**9 * (4 + place), 7)])
        clock.merge([("decode", "worker 1", 0, 10**9, 5), ("generate", "main", 0, 3 * 10**9, 5)])
    clocks[0].join({f"cuda:{place}": clock.measured() for place, clock in enumerate(clocks[1:])}, images=10)
    assert dict(clocks[0].seconds) == {"e2e": 4.0, "decode": 2.0, "generate": 6.0}
    assert dict(clocks[0].images) == {"e2e": 10, "decode": 10, "generate": 10}
    assert clocks[0].lanes["decode"] == {"worker 1 of cuda:0": 1.0, "worker 1 of cuda:1": 1.0}


@pytest.mark.parametrize(
    ("near", "shares"),
    [
        ([set(), set()], [{0, 1, 4, 5}, {2, 3, 6, 7}]),  # 4 to 7 are the second threads of 0 to 3
        ([{2, 3, 6, 7}, {0, 1, 4, 5}], [{2, 3, 6, 7}, {0, 1, 4, 5}]),
        ([{0, 1, 4, 5}] * 2 + [{2, 3, 6, 7}], [{0, 4, 1}, {5, 3, 7}, {2, 6}]),
        ([set()] * 9, [set(range(8))] * 9),
    ],
)
def test_cores_are_divided(monkeypatch, near, shares):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_core", lambda number: (number % 4, number))
    assert cores.divide_cores(near) == shares
    assert cores.numbers_in("0-2,8,10-11\n") == {0, 1, 2, 8, 10, 11}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("auto", 1), ["auto"]),
        (("auto", "auto"), ["cuda:0", "cuda:1"]),
        (("cuda", 2), ["cuda:0", "cuda:1"]),
        (("auto", [1]), ["cuda:1"]),
        (("auto", [1, 0]), ["cuda:1", "cuda:0"]),
        (("cpu", 2), ["cpu", "cpu"]),
        (("cpu", "auto"), ["cpu"]),
        (("auto", 3), "devices=3 asks for cuda:2, and this machine has 2 GPUs, cuda:0 to cuda:1: use devices=auto"),
        (("auto", [0, 2]), "devices=[0,2] asks for cuda:2, and this machine has 2 GPUs"),
        (("auto", [0, 0]), "devices=[0,0] cannot be: name each GPU once"),
        (("auto", 0), "devices=0 is not known: use a number from 1 on, auto, or GPUs by number"),
        (("auto", "all"), "devices=all is not known: use a number from 1 on, auto"),
        (("cuda:1", 2), "device=cuda:1 is one GPU: with devices=2 use device=cuda"),
        (("cpu", [0, 1]), "devices=[0,1] names GPUs, and device=cpu has none: use devices=2"),
        (("cpu", 1000), "devices=1000 is too large for "),
    ],
)
def test_which_devices(monkeypatch, wanted, found):
    monkeypatch.setattr(device, "gpu_addresses", lambda: ["0000:1B:00.0", "0000:43:00.0"])
    if isinstance(found, list):
        assert device.find_devices(*wanted) == found
    else:
        with pytest.raises(ValueError, match="^" + found.replace("[", r"\[")):
            device.find_devices(*wanted)


def test_without_a_gpu_several_are_refused(monkeypatch):
    monkeypatch.setattr(device, "gpu_addresses", lambda: [])
    monkeypatch.setattr(device, "reason_against_gpu", lambda: "torch says: Found no NVIDIA driver")
    with pytest.raises(
        ValueError, match=r"^devices=2 cannot be used, because torch says: Found no NVIDIA driver: use "
    ):
        device.find_devices("auto", 2)
    assert device.find_devices("auto", "auto") == ["auto"]


def test_each_process_sees_one_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.one_gpu(1) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5ab")
    assert gpus.one_gpu(1) == {"CUDA_VISIBLE_DEVICES": "GPU-5ab"}
