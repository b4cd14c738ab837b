"""Ranges and labels from the training files to what comes back: commands and `p2p.load`, of one run."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import p2p
from p2p.commands import train
from p2p.commands.to_safetensors import write_safetensors
from p2p.data.reading import readings_of
from p2p.deploy import published
from tests.api.conftest import trained

RNG = np.random.default_rng(0)
SMALL = [
    "image_size=32",
    "generator.width=4",
    "discriminator.width=4",
    "discriminator=pixel",
    "epochs=1",
    "trainer=cpu",
]


def write_pairs(root):
    """12 bits in 16, and floats of another range, 4 + 2."""
    inputs = {}
    for split, count in (("train", 4), ("val", 2)):
        for side in "AB":
            (root / split / side).mkdir(parents=True)
        for number in range(count):
            frame = RNG.integers(0, 4096, (32, 32), np.uint16)
            Image.fromarray(frame).save(root / split / "A" / f"{number}.png")
            Image.fromarray((frame / 40 - 50).astype(np.float32)).save(root / split / "B" / f"{number}.tif")
            inputs[split, number] = frame
    return inputs


def test_processes_that_train_together_measure_percentiles_once(tmp_path, monkeypatch):
    write_pairs(tmp_path / "pairs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(train.MEASURED, "")
    typed = ["data=folder", "data.root=pairs", "data.range=percentile", "data.input_channels=1"]
    first, second = (p2p.compose([*typed, "data.target_channels=1"]) for _ in range(2))
    train.settle_range(first)
    monkeypatch.setattr(train, "percentiles", lambda *_: pytest.fail("it measures again"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    train.settle_range(second)
    assert second == first and len(second.data.range) == len(second.data.target_range) == 2


@pytest.mark.slow
def test_percentiles_are_kept_from_training_to_outputs(tmp_path, monkeypatch):
    inputs = write_pairs(tmp_path / "pairs")
    monkeypatch.chdir(tmp_path)
    grey = ["data.input_channels=1", "data.target_channels=1"]
    for shares in ("5", "null", "[5]", "[9,1]"):
        with pytest.raises(ValueError, match=r"^data\.percentiles=.* is not valid: use two numbers from 0 to 100"):
            p2p.train(["data=folder", "data.root=pairs", "data.range=percentile", f"data.percentiles={shares}"])
    p2p.train(["data=folder", "data.root=pairs", "data.range=percentile", *grey, *SMALL])
    kept = yaml.safe_load((tmp_path / "runs/default/train.yaml").read_text())["data"]
    numbers = np.stack([frame for (split, _), frame in inputs.items() if split == "train"])
    low, high = np.percentile(numbers, [0.1, 99.9])
    assert kept["range"] == pytest.approx([low, high])
    assert kept["target_range"] == pytest.approx([low / 40 - 50, high / 40 - 50], rel=1e-5)

    p2p.export([])
    with pytest.raises(ValueError, match=r"^16 bits hold no values from -4\d\.\d+ to 52\.\d+, which are the range"):
        p2p.infer([])
    p2p.infer(["codec.format=tiff", "pipeline=sequential"])
    translate = p2p.load("runs/default/export", device="cpu")
    for number in range(2):
        written = np.asarray(Image.open(tmp_path / f"runs/default/images/{number}.tiff"))
        assert written.dtype == np.float32
        assert kept["target_range"][0] <= written.min() < written.max() <= kept["target_range"][1]
        path = tmp_path / f"pairs/val/A/{number}.png"
        frame = inputs["val", number]
        for found in (
            translate(path),
            translate(Image.open(path)),
            translate(frame),
            translate(frame.astype(np.float64)),
        ):
            assert np.abs(np.asarray(found) - written).max() < 1e-4
        levels = np.clip((frame - low) / (high - low), 0, 1) * 2 - 1
        found = translate(torch.from_numpy(levels).float()[None])[0].numpy()
        middle, half = np.mean(kept["target_range"]), np.diff(kept["target_range"]) / 2
        assert np.abs(found * half + middle - written).max() < 1e-4
    assert (tmp_path / "runs/default/gallery.png").is_file()
    with pytest.raises(
        ValueError, match="it is a tensor of 8 bits, and the model takes other numbers: use an array, or"
    ):
        translate(torch.zeros(1, 32, 32, dtype=torch.uint8))


def test_labels_of_every_kind(tmp_path):
    trained(tmp_path / "run", "data.labels=4", "data.edges=true", "data.input_channels=5")
    translate = p2p.load(tmp_path / "run", device="cpu")
    assert translate.input_shape == (5, None, None)
    labels = RNG.choice([0, 1, 3001, 3002], (32, 32)).astype(np.uint16)
    expected = translate(labels)
    assert expected.shape == (32, 32, 3)
    assert expected.dtype == np.uint8
    assert (translate(labels[None, ..., None].astype(np.int64))[0] == expected).all()
    Image.fromarray(labels).save(tmp_path / "x.png")
    for image in (tmp_path / "x.png", Image.open(tmp_path / "x.png")):
        assert (np.asarray(translate(image)) == expected).all()
    with pytest.raises(ValueError, match=r"^cannot translate the image: it holds the label 4, and data\.labels=4 are"):
        translate(np.full((32, 32), 4, np.uint8))
    with pytest.raises(ValueError, match=r"^data\.input_channels=3 would be ignored, because data\.labels and"):
        p2p.compose(["data.labels=4", "data.input_channels=3"])


def test_a_generator_in_one_file_keeps_it(tmp_path):
    pytest.importorskip("safetensors")
    trained(tmp_path / "run", "data.labels=4", "data.edges=true", "data.input_channels=5", "data.range=[0,4095]")
    write_safetensors(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "x.safetensors")
    labels = RNG.choice([0, 1, 3001, 3002], (32, 32)).astype(np.uint16)
    expected, found = (p2p.load(tmp_path / name, device="cpu")(labels) for name in ("run", "x.safetensors"))
    assert found.dtype == np.uint16  # which came, and holds the targets' range
    assert np.abs(found.astype(int) - expected).max() < 40  # the weights are float16 there
    assert published.manifest_of(tmp_path / "x.safetensors").readings == readings_of(
        {"input_channels": 5, "target_channels": 3, "labels": 4, "edges": True, "range": [0, 4095]}
    )
