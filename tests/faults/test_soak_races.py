"""Two commands at once on one folder, and a reader: no file is ever seen that is not whole."""

import hashlib
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.faults.conftest import SMALL, Reader, listing, make_pairs, partials_in

pytestmark = pytest.mark.soak

READS, ROUNDS = 100_000, 10
IMAGES, SIDE = 40, 512  # arrays of 800 kB, which take a while to write


@pytest.fixture
def options(tmp_path):
    return [*SMALL, "data=folder", f"data.root={make_pairs(tmp_path / 'pairs', train=8, val=2)}", "epochs=2", "~logger"]


@pytest.fixture
def run_dir(commands, elsewhere, options):
    run = elsewhere / "run"
    commands.succeed("train.py", f"hydra.run.dir={run}", *options)
    commands.succeed("export.py", f"run_dir={run}")
    return run


def test_two_infer_into_one_folder(commands, run_dir, tmp_path):
    for index in range(IMAGES):
        path = tmp_path / f"images/{index:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)
    output = run_dir / "images"
    command = ["infer.py", f"run_dir={run_dir}", f"input={tmp_path / 'images'}", "batch_size=4", "gallery=0"]
    command += ["restore_size=true", "codec.format=npy"]
    overlap = [*command, "+pipeline=overlap", "pipeline.workers=2"]
    commands.succeed(*overlap)
    whole = {path.name: path.read_bytes() for path in output.glob("*.npy")}
    assert len(whole) == IMAGES

    def judge(path, data):
        return None if data == whole.get(path.name, data) else "other bytes"

    rounds, stopped = 0, 0
    with Reader(output, judge=judge, pause_s=0) as reader:
        while (reader.reads < READS or rounds < ROUNDS) and not reader.wrong:
            lives = [commands.start(*command)]
            if rounds % 2:  # the second passes while the first has a file half written
                half = stop_while_writing(lives[0], output)
                stopped += len(half) > 0
                commands.succeed(*overlap)
                assert half <= listing(output), "the second took the first's temporary file"
                os.kill(lives[0].pid, signal.SIGCONT)
            else:
                lives.append(commands.start(*overlap))
            for life in lives:
                assert life.wait() == 0, life.said()
            rounds += 1
    assert not reader.wrong
    assert partials_in(run_dir) == []
    assert stopped > 1
    print(f"two infer.py, {rounds} times, in {stopped} one stood still while it wrote: {reader.reads} reads, all whole")


def stop_while_writing(life, folder):
    """Stop a command that has a file half written; returns the file as it is then, or nothing if it was too fast."""
    while life.ended() is None:
        if partials_in(folder):
            os.kill(life.pid, signal.SIGSTOP)
            time.sleep(0.005)
            if half := {each for each in listing(folder) if ".partial" in each[0]}:
                return half
            os.kill(life.pid, signal.SIGCONT)
    return set()


def test_a_second_train_of_one_name_is_refused(commands, elsewhere, options):
    alone, shared = elsewhere / "alone", elsewhere / "shared"
    options = [*options, "epochs=20"]
    commands.succeed("train.py", f"hydra.run.dir={alone}", *options)
    for together in (False, True, True):
        lives = [commands.start("train.py", f"hydra.run.dir={shared}", *options)]
        while not together and "training on" not in lives[0].said():
            time.sleep(0.01)
        lives.append(commands.start("train.py", f"hydra.run.dir={shared}", *options))
        codes = [life.wait() for life in lives]
        assert sorted(codes) == [0, 1], [life.said() for life in lives]
        said = lives[codes.index(1)].said()
        assert "Traceback" not in said and str(shared) in said.splitlines()[-1], said
        one, other = (torch.load(run / "checkpoints/last.ckpt")["state_dict"] for run in (alone, shared))
        assert all(torch.equal(one[name], other[name]) for name in one)
    print("two train.py: one of them refused 3 times, the other's weights as without it")


def test_two_export_to_one_folder(commands, run_dir):
    artifact, broken, reads = run_dir / "export", [], 0
    for _ in range(8):
        lives = [commands.start("export.py", f"run_dir={run_dir}") for _ in range(2)]
        while any(life.ended() is None for life in lives):
            with suppress(FileNotFoundError):  # between two names, or of one that was just replaced
                folder = os.open(artifact, os.O_DIRECTORY)
                try:
                    manifest, program = (read(name, folder) for name in ("manifest.json", "generator.pt2"))
                    reads += 1
                    if json.loads(manifest)["program_sha256"] != hashlib.sha256(program).hexdigest():
                        broken.append(len(program))
                finally:
                    os.close(folder)
        assert 0 in (codes := [life.ended() for life in lives]), [life.said() for life in lives]
        assert not any("Traceback" in life.said() for life in lives), (codes, [life.said() for life in lives])
        assert not broken
        commands.succeed("infer.py", f"run_dir={run_dir}", "gallery=0")
    assert partials_in(run_dir) == [] and len(list(run_dir.parent.iterdir())) == 1
    print(f"two export.py, 8 times: {reads} reads of a whole artifact")


def read(name, folder):
    return Path(f"/proc/self/fd/{folder}", name).read_bytes()
