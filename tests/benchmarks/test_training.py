"""The scripts around training: what they compute and draw; their figures need a GPU."""

import copy
import csv
import json
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import baselines, curves, plain_step, training, whole_training
from benchmarks.pace import Pace
from p2p.batch import Batch
from p2p.losses.adversarial import Vanilla
from p2p.losses.loss import Distance
from p2p.metrics import image
from p2p.training.pix2pix import Pix2Pix
from p2p.training.schedules import linear


def test_the_pace_of_each_epoch(tmp_path):
    pace = Pace(file=str(tmp_path / "pace.json"))
    for _ in range(2):
        pace.on_train_epoch_start(None, None)
        for index in range(3):
            trainer = SimpleNamespace(is_last_batch=index == 2)
            pace.on_train_batch_end(trainer, None, None, Batch(["x"] * (index + 1), torch.zeros(1)), index)
    pace.on_train_end(None, None)
    record = json.loads((tmp_path / "pace.json").read_text())
    assert [epoch["images"] for epoch in record["epochs"]] == [6, 6]
    assert all(epoch["seconds"] > 0 for epoch in record["epochs"]) and record["first_step"] > 1e9


def test_pairs_that_are_not_kept_by_decoder_and_cores(tmp_path, monkeypatch):
    """Of a sweep that was cut off: four epochs of 10 images, the first of which does not count."""

    def run(command, *, timeout, **options):
        assert command[:3] == ["taskset", "-c", "0-3"] and {"-m", "batch_size=16,64"} <= {*command} and timeout == 40
        pace = next(text for text in command if text.startswith("+callbacks.pace.file=")).partition("=")[2]
        file = pace.replace("${data.decode}", "cpu").replace("${batch_size}", "16")
        epochs = [{"images": 10, "seconds": seconds} for seconds in (9, 2, 2, 1)]
        Path(file).write_text(json.dumps({"epochs": epochs}))
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(training.subprocess, "run", run)
    (only,) = training.not_kept(tmp_path, 4, [16, 64], 256, quick=False, limit_s=40)
    assert (only["name"], only["batch"], only["images_per_s"]) == ("data.decode=cpu, 4 cores", 16, 6.0)


def test_the_table_of_the_benchmark(capsys):
    rows = [
        training.row("plain", 1, 50.0),
        training.row(training.LADDER[-1][0], 1, 300.0, start=12.3),
        training.row("bare step", 1, 320.0),
        {"name": "train.py, model.compile=true", "batch": 1, "reason": "error: no compiler"},
    ]
    capsys.readouterr()
    training.show(rows)
    out = capsys.readouterr().out
    assert f"| {training.LADDER[-1][0]} | 1 | 300 | 3.33 | 6.00 | 0.94 | 12 s |" in out
    assert "| train.py, model.compile=true | 1 | error: no compiler |" in out
    assert "batch 1: 300 images/s, 250 wanted: met" in out


def test_the_step_of_the_benchmark_is_that_of_the_module():
    """Losses of the first two steps against `Pix2Pix`'s own, from the same weights."""
    size, device = 64, torch.device("cpu")
    step, networks, _ = plain_step.plain_step(size, device, fast=False, width=8)
    batch = Batch(["x"] * 2, *(torch.rand(2, 2, 3, size, size) * 2 - 1))
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    torch.manual_seed(1)
    losses = [step(batch) for _ in range(2)]
    for network, state in zip(networks, before, strict=True):
        network.load_state_dict(state)

    model = Pix2Pix(
        generator=networks[0],
        discriminator=networks[1],
        adversarial=Vanilla(),
        losses={"l1": Distance(distance=torch.nn.L1Loss())},
        metrics={"L1": image.l1()},
        optimizer=partial(torch.optim.Adam, lr=plain_step.LR, betas=plain_step.BETAS),
        scheduler=partial(linear, epochs=1),
    )
    for network, state in zip(networks, before, strict=True):  # which the module has initialized anew
        network.load_state_dict(state)
    made, _ = model.configure_optimizers()
    model.optimizers = lambda use_pl_optimizer=True: made
    model.manual_backward = lambda loss: loss.backward()
    torch.manual_seed(1)
    for mine in losses:
        theirs = model._both_steps([batch])
        for name in ("D", "G_gan", "G_l1"):
            assert mine[name].item() == pytest.approx(theirs[f"train/{name}"].item(), rel=1e-5)


def test_the_colour_table_is_the_mean_of_each_colours_targets(tmp_path):
    """Two input colours, of which one has two targets; the third was never seen."""
    red, blue, green, grey = (200, 0, 0), (0, 0, 200), (0, 200, 0), (100, 100, 100)

    def save(path, left, right):
        frame = np.zeros((16, 32, 3), np.uint8)
        frame[:, :16], frame[:, 16:] = left, right
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(path)

    save(tmp_path / "train/0.png", red, (100, 0, 0))
    save(tmp_path / "train/1.png", red, (200, 20, 0))
    save(tmp_path / "train/2.png", blue, blue)
    save(tmp_path / "val/0.png", red, (150, 10, 0))
    save(tmp_path / "val/1.png", green, grey)
    scores = baselines.main([str(tmp_path), "--image-size", "16", "--output", str(tmp_path / "scores.json")])
    assert json.loads((tmp_path / "scores.json").read_text()) == scores

    def psnr(a, b):
        return 10 * np.log10(255**2 / np.mean((np.array(a, float) - b) ** 2))

    unchanged = [psnr(red, (150, 10, 0)), psnr(green, grey)]
    assert scores["unchanged"]["PSNR"] == pytest.approx(np.mean(unchanged), abs=1e-3)
    assert scores["colour table"]["PSNR"] > 40  # the first is met exactly, the second stays


def test_curves_are_read_and_drawn(tmp_path):
    for run, values in (("a", (1.0, 3.0, 2.0)), ("b", (0.0, 4.0, 4.0))):
        for version in (0, 2, 10):  # the last start counts, by number
            folder = tmp_path / run / f"csv/version_{version}"
            folder.mkdir(parents=True)
            with (folder / "metrics.csv").open("w") as file:
                writer = csv.writer(file)
                writer.writerow(["epoch", "step", "val/PSNR", "train/D", "unchanged/PSNR"])
                writer.writerow([0, 0, -9.0, "", 18.0])  # before training
                for epoch, value in enumerate(values):
                    writer.writerow([epoch, 10 * epoch, value + (version != 10), "", ""])
                    writer.writerow([epoch, 10 * epoch, "", 0.5, ""])
    assert curves.read(tmp_path / "a", "val/PSNR") == [(1, 1.0), (2, 3.0), (3, 2.0)]
    with pytest.raises(ValueError, match="there is no val/FID in"):
        curves.read(tmp_path / "a", "val/FID")
    charts = []
    for line in ([], ["--line", "unchanged=2.5"]):
        path = tmp_path / f"chart{len(line)}.png"
        curves.main(["val/PSNR", str(path), f"one={tmp_path}/a", f"two={tmp_path}/b", *line])
        charts.append(np.asarray(Image.open(path).convert("RGB")))
    for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):
        assert (charts[0] == colour).all(axis=2).sum() > 100
    assert (charts[0] != charts[1]).any(axis=2).sum() > 500  # the line goes all the way


def test_the_phases_of_a_whole_training_add_up():
    """Three epochs of 10 s of steps, 3 of validation and 2 of saving, and the first takes 5 s more."""
    epochs = [{"start": t, "steps_end": t + 10, "saving_s": 2, "images": 40} for t in (128, 148, 163)]
    record = {"train_start": 128, "train_end": 178, "epochs": epochs}
    row = whole_training.phases(record, started=100, ended=185)
    assert row["phases_s"] == {
        "start-up": 28,
        "first epoch": 20,
        "steps": 20,
        "validation": 6,
        "checkpoints": 4,
        "end": 7,
    }
    assert sum(row["phases_s"].values()) == row["whole_s"] == 85
    assert (row["epoch_s"], row["images_per_s"]) == (15, 4)
    assert row["of_steps"] == round((28 + 20 + 199 * 15 + 7) / 2000, 2)
