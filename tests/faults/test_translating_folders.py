"""infer.py on folders: what is on record of failures, which outputs are skipped, and names of any bytes."""

import csv
import fcntl
import io
import json
import os
import sys
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from p2p.commands import infer, infer_plan
from p2p.commands.start import run_command
from p2p.config.cli import CONF, one_sentence
from p2p.data.pairs import Pair, Source
from p2p.report import gallery
from p2p.report.failures import HEADER, listed
from p2p.report.page import data_of
from p2p.system import atomic
from tests.conftest import picture
from tests.pipelines.conftest import Negative, files

OVERLAP = ["pipeline=overlap", "pipeline.workers=2"]


class Engine(Negative):
    image_size = 16

    def __init__(self, program="1"):
        facts = {"direction": "AtoB", "preprocess": "resize_and_crop", "multiple": None, "program_sha256": program}
        facts |= {"image_size": self.image_size, "background": None, "target_range": None}
        program_facts = {"backend": "negative", "dtype": "float32", "precision": None, "considered": None}
        facts |= {"program": SimpleNamespace(**program_facts), "checkpoint": "last.ckpt"}
        facts["program_is_whole"] = lambda folder: True
        self.manifest = SimpleNamespace(**{**vars(Negative.manifest), **facts})

    def check_batch_size(self, batch_size):
        pass


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for index in range(6):
        picture(32, 32, seed=index).save(folder / ("deep" if index % 2 else ".") / f"{index}.png")
    return folder


@pytest.fixture
def translate(tmp_path, photos, capsys, monkeypatch):
    """`translate("codec=pillow")`: what infer.py prints, with the sentence that it ends with, if there is one."""

    def run(*overrides, program="1", gallery=0):
        monkeypatch.setattr(infer_plan, "check_fresh", lambda cfg: None)
        engine = Engine(program)
        monkeypatch.setattr(infer_plan.Manifest, "load", lambda folder: engine.manifest)
        monkeypatch.setattr("p2p.pipelines.load.load_engine", lambda *_, **__: engine)
        given = [f"input={photos}", f"output={tmp_path}/out", f"run_dir={tmp_path}/run", "batch_size=2"]
        given += [f"gallery={gallery}", *overrides]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("infer", given)
        try:
            with one_sentence("infer", full=False):
                infer.main(cfg)
        except SystemExit as end:
            return capsys.readouterr().out + end.code
        return capsys.readouterr().out

    return run


def rows(tmp_path):
    with (tmp_path / "out/failures.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("pipeline", [[], OVERLAP], ids=["sequential", "overlap"])
def test_every_failure_is_on_record_whatever_its_name(translate, photos, tmp_path, pipeline):
    names = ["a\nb.png", 'c,"d".png', os.fsdecode(b"caf\xe9.png"), *(f"{index:02d}.png" for index in range(20))]
    for name in names:
        (photos / name).write_text("no image")
    out = translate(*pipeline)
    assert "\n6 images written to" in out and "23 failed" in out
    sentence = out.rpartition("\n")[2]
    assert sentence.startswith("error: 23 of 29 images failed: cannot read ") and "; and 18 more; " in sentence
    assert sentence.endswith(f"{tmp_path}/out/failures.csv has them all")
    header, *found = rows(tmp_path)
    assert header == ["path", "stage", "reason"]
    assert sorted(found) == sorted([str(photos / name), "decode", f"cannot read {photos / name}: it is not an image"]
                                   for name in names)  # fmt: skip
    for name in names[3:]:
        (photos / name).unlink()
    out = translate("skip_existing=true", *pipeline)
    sentence = out.rpartition("\n")[2]
    assert "0 images written" in out and "3 failed, 6 skipped" in out and len(rows(tmp_path)) == 4
    assert all(name in sentence for name in ("a\\nb.png", 'c,"d".png', "caf\\xe9.png"))
    for name in names[:3]:
        (photos / name).unlink()
    assert "0 failed, 6 skipped" in translate("skip_existing=true", *pipeline)
    assert not (tmp_path / "out/failures.csv").exists()


def test_failures_are_on_record_as_the_run_goes(tmp_path):
    with listed(tmp_path / "failures.csv") as add:
        assert not (tmp_path / "failures.csv").exists()
        for count in range(1, 4):
            add(Pair("x", Source(tmp_path / "x.png")), "decode", "it is damaged")
            assert (tmp_path / "failures.csv").read_text().count(f"{tmp_path}/x.png,decode,it is damaged\n") == count
        with listed(tmp_path / "failures.csv") as other:  # of a run at the same time
            other(Pair("y", Source(tmp_path / "y.png")), "write", "it is too long")
        add(Pair("z", Source(tmp_path / "z.png")), "decode", "it is damaged")
    lines = (tmp_path / "failures.csv").read_text().splitlines()
    assert [line.partition(",")[0][-5:-4] for line in lines] == ["", "x", "x", "x", "y", "z"]
    assert lines[0] == ",".join(HEADER)


def test_a_failures_file_of_the_user_is_left_alone(translate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/failures.csv").write_text("mine\n")
    assert "out/failures.csv is not p2p's, and would be written to: move it" in translate()
    assert files(tmp_path / "out") == {"failures.csv": b"mine\n"}


def test_outputs_are_skipped_that_the_same_run_would_write(translate, photos, tmp_path):
    assert "6 images written" in translate()
    assert "0 images written" in (out := translate("skip_existing=true")) and "6 skipped" in out
    assert "written again" not in out
    assert "6 skipped" in translate("skip_existing=true", "batch_size=3", f"input={photos}/**/*.png")
    (tmp_path / "out/deep/1.png").unlink()
    assert "1 image written" in translate("skip_existing=true", *OVERLAP)


OTHERS = {
    "program": ([], {"program": "2"}),
    "quality": (["codec.quality=50"], {}),
    "encoder": (["codec=pillow", "codec.format=jpg", "codec.quality=96"], {}),
    "size": (["restore_size=true"], {}),
    "preprocess": (["transform.preprocess=crop"], {}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_outputs_of_other_settings_are_written_anew(translate, tmp_path, other):
    overrides, engine = OTHERS[other]
    overrides = ["codec.format=jpg", *overrides]
    translate("codec.format=jpg")
    first = files(tmp_path / "out")
    out = translate("skip_existing=true", *overrides, **engine)
    assert "6 images in" in out and "are written again: 6 from other settings or of unknown origin" in out
    assert "6 images written" in out
    assert "6 skipped" in translate("skip_existing=true", *overrides, **engine)
    (tmp_path / "out/0.jpg").write_bytes(first["0.jpg"])
    translate("codec.format=jpg")  # replaces them without being asked
    out = translate("skip_existing=true", *overrides, **engine)
    assert "6 images written" in out


def test_outputs_of_other_inputs_are_written_anew(translate, photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for path in photos.glob("*.png"):
        picture(32, 32, seed=99).save(tmp_path / "elsewhere" / path.name)
    translate()
    out = translate(f"input={tmp_path}/elsewhere", "skip_existing=true")
    assert "3 images written" in out and "3 from other settings" in out
    out = translate("skip_existing=true")
    assert "3 images written" in out and "3 skipped" in out  # those that the other run has not replaced


def test_what_is_no_output_of_this_run_is_written_anew(translate, photos, tmp_path):
    out = tmp_path / "out"
    translate()
    whole = files(out)
    (out / "0.png").write_bytes(b"")
    os.utime(out / "2.png", ns=(0, 0))  # copied from elsewhere, with its time
    os.utime(photos / "4.png", ns=(0, 0))  # unpacked over the other, with its time
    said = translate("skip_existing=true")
    assert "3 images in" in said and "3 images written" in said
    for reason in ("1 empty", "1 from other settings or of unknown origin", "1 older than their inputs"):
        assert reason in said
    assert files(out) == whole
    for damaged in ("", "[1]", '{"since": 1}'):
        (out / ".p2p.json").write_text(damaged)
        assert "6 from other settings or of unknown origin" in translate("skip_existing=true")
        assert len(json.loads((out / ".p2p.json").read_text())) == 1


def test_temporary_files_of_dead_runs_are_removed(translate, tmp_path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    dead, alive, users = out / "deep/.p2p-1.partial", out / ".p2p-2.partial", out / "x.partial"
    for path in (dead, alive, users):
        path.write_bytes(b"part")
    with alive.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        translate()
    assert not dead.exists() and alive.exists() and users.read_bytes() == b"part"
    translate()
    assert not alive.exists() and atomic.PREFIX not in str(files(out).keys())


@pytest.mark.parametrize("pipeline", [[], OVERLAP], ids=["sequential", "overlap"])
def test_a_folder_that_is_named_like_another_images_output(translate, photos, tmp_path, pipeline):
    (photos / "x.png").mkdir()
    for path in (photos / "x.png/y.jpg", photos / "x.jpg"):
        picture(32, 32).save(path)
    out = translate(*pipeline)
    assert "7 images written" in out and f"out/x.png/y.png: {tmp_path}/out/x.png is another image's output" in out
    assert rows(tmp_path)[1][:2] == [str(photos / "x.png/y.jpg"), "write"]
    assert (tmp_path / "out/x.png").is_file()


def test_a_gallery_that_cannot_be_drawn_changes_nothing(translate, photos, tmp_path):
    (tmp_path / "run").write_text("in its way")
    out = translate(gallery=9)
    assert "6 images written" in out and "no gallery could be drawn: " in out and "error: " not in out
    (photos / "bad.png").write_text("no image")
    assert "error: 1 of 7 images failed: cannot read" in translate(gallery=9)


def test_an_output_that_is_lost_meanwhile_is_missing_in_the_gallery(translate, photos, tmp_path, monkeypatch):
    collect = gallery.collect

    def later(*args, **options):
        (tmp_path / "out/0.png").write_bytes(b"")
        (tmp_path / "out/2.png").unlink()
        return collect(*args, **options)

    monkeypatch.setattr(gallery, "collect", later)
    assert "2 images are not in the gallery, such as 0: it is not an image" in translate(gallery=9)
    assert len(data_of((tmp_path / "run/index.html").read_text())["images"]) == 4


def test_a_name_that_is_not_utf_8_in_every_place(translate, photos, tmp_path):
    picture(32, 32).save(photos / os.fsdecode(b"caf\xe9.png"), "PNG")
    for pipeline in ([], OVERLAP):
        assert "7 images written" in translate(*pipeline, gallery=9)
        assert os.fsdecode(b"caf\xe9.png") in files(tmp_path / "out")
        assert "caf\\xe9" in [image["name"] for image in data_of((tmp_path / "run/index.html").read_text())["images"]]
        assert "7 skipped" in translate("skip_existing=true", *pipeline)


def test_a_terminal_that_knows_ascii_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["infer.py"])
    run_command("infer", ["--cfg", "job", 'name="é"'])
    sys.stdout.flush()
    assert b"name: \\xe9" in sys.stdout.buffer.getvalue()
