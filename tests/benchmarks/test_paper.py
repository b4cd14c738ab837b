"""The scripts that reproduce the paper's tables: scores, pictures, what is done again. Their figures need a GPU."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import paper, readback, sweep
from p2p.report.picture import MARGIN

FACADE, WINDOW, DOOR, SHOP = (list(readback.PALETTE).index(name) for name in ("facade", "window", "door", "shop"))
COLOURS = np.array(list(readback.PALETTE.values()), np.uint8)


def test_a_pixel_is_of_the_class_of_the_nearest_colour():
    """Every colour is its own; one a quarter of the way to another is still the first one's."""
    assert readback.classes(COLOURS[None]).tolist() == [list(range(12))]
    between = (COLOURS[FACADE] * 0.75 + COLOURS[WINDOW] * 0.25).astype(np.uint8)
    assert readback.classes(between) == FACADE
    assert readback.classes(np.array([0, 0, 0], np.uint8)) == SHOP  # 174 away, the background 222


def test_scores_against_a_confusion_matrix_by_hand():
    """Facade, window and door are there; of the doors none is read, and a shop is read where there is none."""
    truth = np.array([[FACADE, FACADE, FACADE], [WINDOW, WINDOW, DOOR]])
    read = np.array([[FACADE, FACADE, WINDOW], [WINDOW, WINDOW, SHOP]])
    matrix = readback.confusion(truth, read)
    assert matrix.sum() == 6 and matrix[FACADE, WINDOW] == 1 and matrix[DOOR, SHOP] == 1 and matrix[WINDOW, FACADE] == 0
    expected = {"pixel": 4 / 6, "class": (2 / 3 + 1 + 0) / 3, "IoU": (2 / 3 + 2 / 3 + 0 + 0) / 4}
    assert readback.scores(matrix) == pytest.approx(expected)


def test_what_a_reader_reads_is_compared_with_the_labels_pixel_by_pixel():
    """A reader that swaps two colours of the photo, over two images that together have 6 of 8 right."""
    labels = [COLOURS[np.array([[FACADE, FACADE], [FACADE, DOOR]])], COLOURS[np.full((2, 2), WINDOW)]]
    photos = [COLOURS[np.array([[FACADE, DOOR], [DOOR, DOOR]])], labels[1]]
    result = readback.readback(lambda frames: frames, photos, labels)
    assert result == pytest.approx({"pixel": 6 / 8, "class": (1 / 3 + 1 + 1) / 3, "IoU": (1 / 3 + 1 / 3 + 1) / 3})


def save_pairs(folder: Path, rights: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for index, right in enumerate(rights):
        left = np.full_like(right, 40 * index)
        Image.fromarray(np.hstack([left, right])).save(folder / f"{index}.png")


def test_validation_pairs_as_the_networks_see_them(tmp_path):
    maps = [np.broadcast_to(COLOURS[each], (16, 16, 3)).copy() for each in (WINDOW, SHOP)]
    save_pairs(tmp_path / "good/val", maps)
    names, labels, photos = readback.validation(tmp_path / "good", 16)
    assert names == ["0", "1"] and [frame[0, 0].tolist() for frame in photos] == [[0] * 3, [40] * 3]
    assert all((mine == right).all() for mine, right in zip(labels, maps, strict=True))
    save_pairs(tmp_path / "bad/val", [np.full((16, 16, 3), 128, np.uint8)] * 2)
    with pytest.raises(ValueError, match="only 0% of the pixels in the right halves of"):
        readback.validation(tmp_path / "bad", 16)


def test_distances_against_their_formulas():
    a, b = (np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8) for seed in (0, 1))
    scores = paper.distances([a, a], [b, a // 2])
    errors = [a.astype(float) - b, a.astype(float) - a // 2]
    assert scores["PSNR"] == pytest.approx(np.mean([10 * np.log10(255**2 / np.mean(e**2)) for e in errors]), rel=1e-4)
    assert scores["L1"] == pytest.approx(np.mean([np.abs(e).mean() / 127.5 for e in errors]), rel=1e-4)
    assert scores["SSIM"] < 1 and paper.distances([a], [a])["SSIM"] == pytest.approx(1)


def test_a_sweep_leaves_alone_what_is_done_and_goes_on_with_what_is_begun(tmp_path, monkeypatch):
    for name, epochs in (("whole", 3), ("begun", 2)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        loops = {"fit_loop": {"epoch_progress": {"current": {"processed": epochs}}}}
        contents = {"state_dict": {}, "loops": loops, "optimizer_states": [{}]}
        torch.save(contents, tmp_path / name / "checkpoints/last.ckpt")
    commands = []

    class Done:
        returncode = 0

    monkeypatch.setattr(sweep.subprocess, "run", lambda command: commands.append(command) or Done)
    sweep.sweep(["new", "whole", "begun", "other"], tmp_path, ["image_size=64"], epochs=3)
    resumed, started = commands
    assert {"experiment=begun", "epochs=3", "image_size=64", "ckpt_path=last"} < set(resumed)
    assert {"-m", "experiment=new,other", f"hydra.sweep.dir={tmp_path}"} < set(started)
    assert "ckpt_path=last" not in started
    Done.returncode = 1
    with pytest.raises(SystemExit, match=r"train\.py did not come to its end"):
        sweep.sweep(["new"], tmp_path, [], epochs=3)


def test_the_presets_of_the_tables_are_there():
    presets = {path.stem for path in Path("conf/experiment").glob("*.yaml")}
    assert {run for table in paper.TABLES.values() for run in table.values()} <= presets


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """A data set of 3 validation pairs, and stand-ins for what trains: outputs are the labels, of `paper_l1` photos."""
    save_pairs(tmp_path / "facades/val", [np.broadcast_to(COLOURS[each], (32, 32, 3)).copy() for each in (1, 2, 3)])
    _, labels, photos = readback.validation(tmp_path / "facades", 32)
    calls = []

    def translated(run_dir):
        calls.append(run_dir.name)
        (run_dir / "images").mkdir(parents=True)
        for index, frame in enumerate(photos if run_dir.name == "paper_l1" else labels):
            Image.fromarray(frame).save(run_dir / f"images/{index}.png")
        return run_dir / "images"

    def reader(frames):
        return frames

    reader.image_size = 32
    monkeypatch.setattr(paper, "trained_reader", lambda *args, **options: reader)
    monkeypatch.setattr(paper, "sweep", lambda names, *args, **options: calls.append(tuple(names)))
    monkeypatch.setattr(paper, "translated", translated)
    monkeypatch.setattr(paper, "quiet_libraries", lambda: None)
    return tmp_path, calls


def test_tables_and_pictures_come_out_and_are_not_made_twice(trainings, capsys):
    folder, calls = trainings
    command = [str(folder / "facades"), str(folder / "out"), "--epochs", "3", "image_size=32"]
    paper.main([*command, "--tables", "1"])
    runs = list(paper.TABLES[1].values())
    assert calls == [tuple(runs), *runs]
    rows = json.loads((folder / "out/paper.json").read_text())["rows"]
    assert (
        rows["paper_l1"]["L1"] == 0 and rows["paper_gan"]["IoU"] == 1
    )  # photos are photos, and labels are read as such
    assert "| cGAN | 1.000 | 1.000 | 1.000 |" in (folder / "out/paper.md").read_text()
    sheet = np.asarray(Image.open(folder / "out/table_1.jpg")).astype(int)
    width = 32 + MARGIN
    cells = [[sheet[-24 - 40 * (2 - row), 24 + width * column] for column in range(7)] for row in range(3)]
    for row, label in enumerate((1, 2, 3)):
        expected = [COLOURS[label], [40 * row] * 3, *[COLOURS[label]] * 4, [40 * row] * 3]
        assert np.abs(np.array(cells[row]) - expected).max() < 12  # JPEG

    calls.clear()
    paper.main([*command, "--tables", "1,3"])
    others = [run for run in paper.TABLES[3].values() if run != "paper_l1_cgan"]
    assert calls == [tuple(others), *others]
    text = (folder / "out/paper.md").read_text()
    assert "| Table 1 |" in text and "| Table 2 |" not in text and "| 70x70 | 1.000 |" in text
    with pytest.raises(ValueError, match="have epochs=3, not 4: use another folder"):
        paper.main([str(folder / "facades"), str(folder / "out"), "--epochs", "4", "image_size=32"])


def test_facade_everywhere_has_the_share_of_the_facade():
    labels = [COLOURS[np.array([[FACADE, FACADE], [FACADE, DOOR]])]]
    rows = readback.ends(lambda frames: frames, labels, labels)
    assert rows["facade everywhere"] == pytest.approx({"pixel": 0.75, "class": 0.5, "IoU": 0.375})
    assert set(rows["real photos"].values()) == {1.0} and tuple(rows) == paper.ENDS
