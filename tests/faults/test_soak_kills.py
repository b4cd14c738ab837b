"""Commands are killed at random moments and run again: nothing is lost, nothing is half, and the result is the same."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import ROOT
from tests.faults.conftest import (
    SMALL,
    Reader,
    files_in,
    flaw,
    listing,
    make_pairs,
    partials_in,
)
from tests.started import as_in_a_terminal, processes_of

pytestmark = pytest.mark.soak

SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]
KILLS = {name: int(os.environ.get(f"P2P_KILLS_{name.upper()}", n)) for name, n in
         {"infer": 100, "train": 30, "export": 20}.items()}  # fmt: skip
IMAGES = 300
NAMES = ("last", "best")
NOTHING_LEFT = "leaves nothing to train"


def kill_when(command, moment, number):
    """Wait for the moment, a function that says whether it has come, and kill; returns whether there was time to."""
    while not moment() and command.ended() is None:
        time.sleep(0.0005)
    if command.ended() is None:
        os.kill(command.pid, number)
    code, said = command.wait(), command.said()
    if code == 0 or NOTHING_LEFT in said:  # it was over before the signal came
        return False
    assert code in (-number, 128 + number), said
    assert "Traceback" not in said, said
    return True


def after(seconds):
    """A moment, counted from now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def then(moment, seconds):
    """A moment, and some time."""
    end = None

    def has_come():
        nonlocal end
        if end is None and moment():
            end = time.monotonic() + seconds
        return end is not None and time.monotonic() >= end

    return has_come


def more_than(count, done):
    return done() > count


def no_process_is_left(commands):
    deadline = time.monotonic() + 5
    while left := processes_of(commands):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_in(folder)}


@pytest.fixture
def run_dir(commands, elsewhere, tmp_path):
    """A trained and exported run, and beside it, under `other`, another model's program."""
    root = make_pairs(tmp_path / "pairs", train=8, val=2)
    for name, seed in (("run", 0), ("other", 1)):
        run = elsewhere / name
        options = [*SMALL, "data=folder", f"data.root={root}", "epochs=1", f"seed={seed}", "~logger"]
        commands.succeed("train.py", f"hydra.run.dir={run}", *options)
        commands.succeed("export.py", f"run_dir={run}")
    return elsewhere / "run"


def test_infer(commands, run_dir, tmp_path):
    for index in range(IMAGES):
        path = tmp_path / f"images/{index % 3}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    output = run_dir / "images"
    command = [
        "infer.py",
        f"run_dir={run_dir}",
        f"input={tmp_path / 'images'}",
        f"output={output}",
        "gallery=4",
        "batch_size=4",
    ]
    overlap = ["+pipeline=overlap", "pipeline.workers=2"]
    commands.succeed(*command, f"export={run_dir.parent / 'other/export'}", *overlap)
    old, of_old = contents(output), contents(run_dir)
    commands.succeed(*command, *overlap)
    new, of_new = contents(output), contents(run_dir)
    images = [name for name in new if name.endswith(".png")]
    assert len(images) == IMAGES and all(old[name] != new[name] for name in images)

    def judge(path, data):
        name = str(path.relative_to(run_dir))
        if name in of_new and path.suffix in (".png", ".html"):
            return None if data in (of_old[name], of_new[name]) else flaw(path, data) or "other bytes"
        return flaw(path, data)

    draw, seen, signals, reads = random.Random(18), Counter(), Counter(), 0
    began = time.monotonic()
    while seen.total() < KILLS["infer"]:
        replaces = draw.random() < 0.5  # else the folder is empty
        for path in list(files_in(output)):
            path.unlink()
        for name, data in old.items() if replaces else ():
            (output / name).write_bytes(data)
        start, number = time.time_ns() + 10_000_000, draw.choice(SIGNALS)
        time.sleep(0.02)

        def done(start=start):
            """Outputs of this life."""
            return sum(
                each.stat().st_mtime_ns > start
                for folder in os.scandir(output) if folder.is_dir()
                for each in os.scandir(folder) if not each.name.endswith(".partial")
            )  # fmt: skip

        options = draw.choice([overlap, overlap, []])
        moment = draw.choices(
            [
                after(draw.uniform(0, 2.0)),
                then(partial(more_than, draw.randrange(IMAGES), done), draw.uniform(0, 0.005)),
                then(partial(more_than, IMAGES - 1, done), draw.uniform(0, 0.2)),
            ],
            [15, 75, 10],
        )[0]
        with Reader(run_dir, judge=judge) as reader:
            killed = kill_when(commands.start(*command, *options), moment, number)
            no_process_is_left(commands)
            assert not reader.wrong
            written = done()
            lost = old.keys() - contents(output).keys() if replaces else set()
            assert not lost, f"lost: {sorted(lost)[:5]}"
            skip = [] if replaces else ["skip_existing=true"]
            said = commands.succeed(*command, *options, *skip)
        reads += reader.reads
        assert not reader.wrong
        assert {name: data for name, data in contents(output).items() if name.endswith(".png")} == {
            name: new[name] for name in images
        }
        assert partials_in(run_dir) == []
        if skip:
            assert f"{written} skipped" in said.splitlines()[-2], said
        if killed:
            phase = "start" if written == 0 else "report" if written == IMAGES else "translating"
            seen[phase] += 1
            signals[number.name] += 1
    print(f"infer.py: {dict(seen)}, {dict(signals)}, {reads} reads, {time.monotonic() - began:.0f} s")


def test_train(commands, elsewhere, tmp_path):
    root = make_pairs(tmp_path / "pairs", train=24, val=2)
    options = [*SMALL, "generator.width=12", "data=folder", f"data.root={root}", "epochs=6", "batch_size=2"]
    began = time.monotonic()
    commands.succeed("train.py", f"hydra.run.dir={elsewhere / 'whole'}", *options)
    takes_s = time.monotonic() - began
    whole = {name: torch.load(elsewhere / f"whole/checkpoints/{name}.ckpt") for name in NAMES}
    record = OmegaConf.load(elsewhere / "whole/train.yaml")

    draw, seen, signals, reads, runs = random.Random(18), Counter(), Counter(), 0, 0
    while seen.total() < KILLS["train"]:
        runs += 1
        run = elsewhere / f"run{runs}"
        saved, command = run / "checkpoints", ["train.py", f"hydra.run.dir={run}", *options]
        with Reader(run, pause_s=0.02) as reader:
            for _ in range(3):
                life = commands.start(*command, *resuming(saved))
                trains = partial(has_said, life, "training on")
                moment = draw.choices(
                    [
                        after(draw.uniform(0, 1.5)),
                        then(trains, draw.uniform(0, takes_s - 1)),
                        then(changes(saved, draw.randint(1, 20)), draw.uniform(0, 0.01)),
                    ],
                    [15, 40, 45],
                )[0]
                number = draw.choice(SIGNALS)
                if not kill_when(life, moment, number):
                    break  # it has come to its end
                phase = "saving" if partials_in(saved) else "training" if trains() else "start"
                seen[phase] += 1
                signals[number.name] += 1
                assert not reader.wrong
                for path in saved.glob("*.ckpt"):
                    assert torch.load(path)["state_dict"].keys() == whole["last"]["state_dict"].keys()
                    assert OmegaConf.load(run / "train.yaml").generator == record.generator
                    commands.succeed("export.py", f"run_dir={run}", f"ckpt_path={path.stem}")
            code, said = commands.run(*command, *resuming(saved))
            assert code == 0 or NOTHING_LEFT in said, said
        reads += reader.reads
        assert not reader.wrong
        for name in NAMES:
            assert same(torch.load(saved / f"{name}.ckpt")["state_dict"], whole[name]["state_dict"]), name
        assert partials_in(run) == []
    print(f"train.py: {dict(seen)}, {dict(signals)}, {reads} reads, {time.monotonic() - began:.0f} s")


def has_said(life, words):
    return words in life.said()


def resuming(saved):
    return ["ckpt_path=last"] if (saved / "last.ckpt").is_file() else []


def changes(folder, count):
    """A moment: the folder has changed that often, by a file made, grown or renamed."""
    seen = [listing(folder)]

    def has_come():
        if (now := listing(folder)) != seen[-1]:
            seen.append(now)
        return len(seen) > count

    return has_come


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_export(commands, run_dir):
    command, artifact = ["export.py", f"run_dir={run_dir}"], run_dir / "export"
    infer = ["infer.py", f"run_dir={run_dir}", "gallery=0"]
    began = time.monotonic()
    commands.succeed(*command)
    takes_s = time.monotonic() - began
    commands.succeed(*infer)
    outputs, names = contents(run_dir / "images"), sorted(contents(artifact))
    draw, seen, signals, reads = random.Random(18), Counter(), Counter(), 0
    while seen.total() < KILLS["export"]:
        with Reader(run_dir) as reader:
            moment = draw.choice(
                [
                    after(draw.uniform(0, takes_s)),
                    then(changes(run_dir, draw.randint(1, 4)), draw.uniform(0, 0.01)),
                ]
            )
            before, number = listing(run_dir), draw.choice(SIGNALS)
            if not kill_when(commands.start(*command), moment, number):
                continue
            seen["writing" if listing(run_dir) != before else "building"] += 1
            signals[number.name] += 1
            commands.succeed(*infer)
            assert contents(run_dir / "images") == outputs
        reads += reader.reads
        assert not reader.wrong
    commands.succeed(*command)
    assert sorted(contents(artifact)) == names
    assert partials_in(run_dir, commands.folder / "cache") == []
    assert len(list(run_dir.parent.iterdir())) == 2
    print(f"export.py: {dict(seen)}, {dict(signals)}, {reads} reads, {time.monotonic() - began:.0f} s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_python_while_it_starts(commands, run_dir, number):
    """As a user starts them, not forked: most of this time is spent with imports."""
    draw, codes = random.Random(int(number)), Counter()
    before = contents(run_dir)
    for name in ["train.py", "export.py", "infer.py"] * 3:
        output = run_dir if name == "train.py" else run_dir / "new"
        process = subprocess.Popen(
            [sys.executable, name, f"{'hydra.run.dir' if name == 'train.py' else 'output'}={output}"]
            + ([*SMALL] if name == "train.py" else [f"run_dir={run_dir}"]),
            cwd=ROOT,
            env=commands.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=as_in_a_terminal,
        )
        time.sleep(draw.uniform(0.05, 3))
        process.send_signal(number)
        said = process.communicate(timeout=30)[0]
        if name not in said and "Traceback" in said:  # before the script's first line, it is Python's own
            continue
        codes[process.returncode] += 1
        assert process.returncode in (-number, 128 + number) and "Traceback" not in said, said
        assert partials_in(run_dir) == []
    assert {name: contents(run_dir)[name] for name in before} == before
    print(f"{number.name} while Python starts: exit statuses {dict(codes)}")
