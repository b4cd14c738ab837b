"""The three commands as a user starts them, on a small network; training in a process of its own."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from functools import partial
from urllib.parse import unquote

import hydra.experimental.callback
import pytest
import torch
import yaml
from PIL import Image

import p2p
from p2p.commands.results import Translated
from p2p.report.page import data_of
from tests.conftest import ROOT

SMALL = ["image_size=32", "generator.width=8", "discriminator.width=8", "discriminator.layers=1"]
SHORT = ["+trainer.limit_train_batches=8", "+trainer.limit_val_batches=2"]


def start(command, *overrides):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(ROOT / f"{command}.py"), *overrides]
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores Ctrl-C in what it runs in the background, and these tests would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def run(command, *overrides, code=0):
    process = start(command, *overrides)
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    return out, err


@pytest.fixture(scope="module")
def forked(commands):
    """Run a command in a process of its own that needs no start: what it prints to either stream."""

    def run_forked(command, *overrides, code=0):
        process = commands.start(f"{command}.py", *overrides, apart=True)
        ended, out, err = process.wait(240), process.said(), process.complained()
        assert ended == code, out + err
        assert "Traceback" not in err
        return out, err

    return run_forked


@pytest.fixture
def inside(monkeypatch, capsys):
    """Run a command in this process, which saves its start, and return what it prints."""

    def inside_of(command, *overrides):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *overrides])
        runpy.run_path(str(ROOT / f"{command}.py"), run_name="__main__")
        return capsys.readouterr().out

    return inside_of


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Run a command in this process, which saves its start, and return the one sentence with which it refuses."""

    def refusal_of(command, *overrides):
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *overrides])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / f"{command}.py"), run_name="__main__")
        assert stopped.value.code.startswith("error: ")
        assert "\n" not in stopped.value.code
        assert capsys.readouterr().err == ""
        return stopped.value.code

    return refusal_of


@pytest.fixture(scope="module")
def name(tmp_path_factory, forked):
    """A trained and exported run; `runs/<name>` leads to a temporary folder."""
    name = os.path.relpath(tmp_path_factory.mktemp("run"), ROOT / "runs")
    out, err = run("train", f"name={name}", *SMALL, *SHORT, "epochs=2")
    assert err.strip() == ""
    assert "input unchanged" in out and "after training" in out
    forked("export", f"name={name}", "min_psnr=60")
    return name


def folder_of(name):
    return (ROOT / "runs" / name).resolve()


def test_train_leaves_checkpoints_logs_pictures_and_its_record(name):
    folder = folder_of(name)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {"checkpoints/last.ckpt", "checkpoints/best.ckpt", "train.yaml", "csv/version_0/metrics.csv"} <= found
    assert {"samples/epoch_0001.png", "samples/epoch_0002.png"} <= found
    assert {".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"} <= found
    typed = yaml.safe_load((folder / ".hydra/overrides.yaml").read_text())
    assert typed == [f"name={name}", *SMALL, *SHORT, "epochs=2"]
    assert any(path.startswith("tensorboard/version_0/events") for path in found)
    header = (folder / "csv/version_0/metrics.csv").read_text().splitlines()[0]
    columns = {"train/D", "train/G_gan", "train/G_l1", "val/L1", "val/PSNR", "val/SSIM", "lr/G", "lr/D"}
    assert columns <= set(header.split(","))
    record = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert (record["epoch"], record["global_step"]) == (1, 16)


def test_infer_by_both_pipelines(name, inside, forked):
    folder = folder_of(name)
    out, _ = forked("infer", f"name={name}", "batch_size=8")
    assert "16 images written" in out and "0 failed" in out
    for stage in ("start", "warm-up", "decode", "preprocess", "generate", "encode", "write", "end to end"):
        assert stage in out
    out = inside(
        "infer",
        f"name={name}",
        "+pipeline=overlap",
        "pipeline.workers=2",
        "batch_size=8",
        f"output={folder}/overlapped",
        "profile=timeline",
    )
    assert f"look at runs/{name}/timeline.png" in out
    trace = json.loads((folder / "timeline.json").read_text())["traceEvents"]
    assert sum(event["args"]["images"] for event in trace if event["name"] == "write") == 16
    assert (folder / "timeline.png").is_file()
    for pair in sorted((ROOT / "data/samples/val").glob("*.jpg")):
        one, other = ((folder / kind / f"{pair.stem}.png").read_bytes() for kind in ("images", "overlapped"))
        assert one == other
    photos = {path.stem: Image.open(path) for path in (ROOT / "data/samples/val").glob("*.jpg")}
    inputs = [photos[stem].crop((0, 0, photos[stem].width // 2, photos[stem].height)) for stem in sorted(photos)]
    translated = p2p.load(folder / "export", device="cpu")(inputs, batch_size=8)
    for stem, image in zip(sorted(photos), translated, strict=True):
        assert image.tobytes() == Image.open(folder / f"images/{stem}.png").tobytes()
    data = data_of((folder / "index.html").read_text())
    assert [image["name"] for image in data["images"]] == sorted(photos)
    assert data["settings"]["pipeline._target_"] == "p2p.pipelines.overlap.run"
    for image in data["images"]:
        assert all((folder / unquote(file["address"])).is_file() for file in image["files"])
    assert len((folder / "scores.csv").read_text().splitlines()) == 17
    assert Image.open(folder / "gallery.png").width > 3 * 32


def test_infer_on_a_folder_with_a_broken_file(name, tmp_path, inside, forked):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (50, 40), "red").save(folder / "deep/a.bmp")
    (folder / "b.jpg").write_bytes(b"no image")
    arguments = [f"name={name}", f"input={folder}", f"output={tmp_path}/out", "codec.format=jpg"]
    _, err = forked("infer", *arguments, code=1)
    assert err.strip().startswith("error: 1 of 2 images failed: cannot read")
    assert "b.jpg: it is not an image" in err
    assert [path.name for path in (tmp_path / "out").rglob("*.jpg")] == ["a.jpg"]
    assert "b.jpg,decode,cannot read" in (tmp_path / "out/failures.csv").read_text()
    assert Image.open(tmp_path / "out/deep/a.jpg").size == (32, 32)
    (folder / "b.jpg").unlink()
    out = inside("infer", *arguments, "skip_existing=true")
    assert "0 images written" in out and "1 skipped" in out


def test_infer_on_a_list_at_the_inputs_sizes(name, tmp_path, inside):
    """With targets, whose gallery and PSNR are at the size of the network."""
    (tmp_path / "list.txt").write_text("data/samples/val/1f317.jpg\ndata/samples/val/1f35e.jpg\n")
    arguments = [f"name={name}", f"input=@{tmp_path}/list.txt", f"output={tmp_path}/out", "layout=side_by_side"]
    out = inside("infer", *arguments, "restore_size=true")
    assert "2 images written" in out
    assert {path.name: Image.open(path).size for path in (tmp_path / "out").glob("*.png")} == {
        "1f317.png": (256, 256),
        "1f35e.png": (256, 256),
    }


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_exports_and_resumes_into_new_logs(tmp_path, inside, commands, forked):
    name = os.path.relpath(tmp_path, ROOT / "runs")
    process = commands.start("train.py", f"name={name}", *SMALL, *SHORT, "epochs=500", apart=True)
    while not (tmp_path / "checkpoints/last.ckpt").exists():
        assert process.ended() is None, process.complained()
        time.sleep(0.1)
    time.sleep(0.5)  # into the next epoch
    os.kill(process.pid, signal.SIGINT)
    ended, out, err = process.wait(60), process.said(), process.complained()
    assert ended == 130, out + err
    assert "Traceback" not in err
    assert "stopped by Ctrl-C" in err and "ckpt_path=last" in out
    step = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert step > 8
    inside("export", f"name={name}")
    epochs = step // 8 + 1  # one more if it was stopped in the validation after an epoch
    out, _ = forked("train", f"name={name}", f"epochs={epochs}", "ckpt_path=last")
    assert f"/{epochs}" in out and f"epoch   1/{epochs}" not in out
    assert (tmp_path / "csv/version_0").is_dir() and (tmp_path / "csv/version_1").is_dir()
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8 * epochs


class Score(hydra.experimental.callback.Callback):
    """What a command returns to Hydra, whose sweepers optimize it."""

    def on_job_end(self, config, job_return, **rest):
        Score.found = job_return.return_value


@pytest.mark.slow
def test_a_sweep_gives_each_job_a_folder(tmp_path, inside, forked):
    name = os.path.relpath(tmp_path, ROOT / "runs")
    fast = ["epochs=1", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1"]
    forked("train", f"name={name}", "-m", *SMALL, *fast, "model.lambda_l1=10,100")
    jobs = {path.parent.parent.name: path for path in tmp_path.rglob("last.ckpt")}
    assert len(jobs) == 2
    for weight in (10, 100):
        (job,) = (job for job in jobs if job.endswith(f"model.lambda_l1-{weight}"))
        assert f"lambda_l1: {weight}\n" in (tmp_path / job / "train.yaml").read_text()
        assert f"model.lambda_l1={weight}" in (tmp_path / job / ".hydra/overrides.yaml").read_text()
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 3
    assert all(each["picture"] for each in data_of((tmp_path / "index.html").read_text())["jobs"])
    inside("export", f"name={name}/{job}", "+hydra.callbacks.score._target_=tests.test_commands.Score")
    psnr = json.loads((tmp_path / job / "export/manifest.json").read_text())["psnr_db"]
    assert Score.found == psnr["worst"]


@pytest.mark.slow
def test_two_folders_grey_to_colour_in_the_other_direction(tmp_path, inside, forked):
    for split in ("train", "val"):
        for side, colour in (("A", "red"), ("B", "grey")):
            (tmp_path / "pairs" / split / side).mkdir(parents=True)
            Image.new("RGB", (40, 40), colour).save(tmp_path / "pairs" / split / side / "x.png")
    data = ["data=folder", f"data.root={tmp_path}/pairs", "data.direction=BtoA", "data.input_channels=1"]
    name = os.path.relpath(tmp_path / "run", ROOT / "runs")
    out, _ = forked("train", f"name={name}", *SMALL, *data, "epochs=1")
    assert "input unchanged" not in out  # 1 and 3 channels cannot be compared
    out = inside("export", f"name={name}", "frames=true")
    assert "exported_program, fp32 on frames," in out
    inside("infer", f"name={name}", "+pipeline=overlap")
    manifest = json.loads((tmp_path / "run/export/manifest.json").read_text())
    assert manifest["program"]["dtype"] == "uint8"
    assert (manifest["input_shape"][0], manifest["output_shape"][0], manifest["direction"]) == (1, 3, "BtoA")
    assert Image.open(tmp_path / "run/images/x.png").mode == "RGB"


MISTAKES = {
    ("train", "model.lamda_l1=3"): "model.lamda_l1 is not in the config, did you mean model.lambda_l1",
    ("train", "lambda_l1=3"): "did you mean model.lambda_l1",
    ("train", "genrator=unet"): "did you mean generator",
    ("train", "generator=unett"): "generator=unett is not known, did you mean unet",
    ("train", "data=folder"): "data.root has no value",
    ("train", "monitor=val/PSNR"): "monitor_mode=min takes the worst val/PSNR for the best: use monitor_mode=max",
    ("train", "data.root=nowhere"): "there is no folder nowhere, named by data.root",
    ("train", "+trainer.limit_val_batches=0"): "limit_val_batches=0 leaves no score to choose the best epoch by",
    ("train", "+generator.foo=1"): "unexpected keyword argument 'foo'",
    ("train", "name=a b("): "name=a b( cannot be read",
    ("train", "image_size=100"): "image_size=100 does not suit a U-Net",
    ("train", "generator.depth=8"): "generator.depth=8 halves a side 8 times, which image_size=128 does not allow",
    ("train", "model.init=zeros"): "model.init=zeros is not known: use normal, xavier, kaiming or orthogonal",
    ("train", "experiment=papper"): "experiment=papper is not known, did you mean paper",
    ("train", "ckpt_path=last"): "there is no checkpoint",
    ("export", "backend=onx"): "backend=onx is not known, did you mean onnx; known are ",
    ("export", "ckpt_path=best"): "there is no trained run in",
    ("infer", "photos"): "photos has no key: write input=photos to translate it",
    ("infer", "restore_size"): "restore_size has no value: write restore_size=..., such as restore_size=true",
    ("train", "data=/some/folder"): "for a folder of pairs use data=folder data.root=/some/folder",
    ("train", "seed=1,2"): "seed=1,2 has several values: for a run with each of them add -m",
    ("infer", "profile=timelin"): "profile=timelin is not known, did you mean timeline",
    ("infer", "device=tpu"): "device=tpu is not known: use auto, cpu or cuda",
    ("infer", "batch_size=8"): "no exported generator in",
    ("infer", "+pipeline=overlp"): "pipeline=overlp is not known, did you mean overlap; known are auto, lightning, ",
}


@pytest.mark.parametrize(("command", "override"), MISTAKES)
def test_a_mistake_gets_one_sentence(command, override, refusal, tmp_path):
    name = [] if override.startswith("name=") else [f"name={os.path.relpath(tmp_path, ROOT / 'runs')}"]
    assert MISTAKES[command, override] in refusal(command, *name, override)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", ["auto"]),
        ("+pipeline=overlap batch_size=8", ["overlap"]),
        ("pipeline=overlap", ["overlap"]),
        ("-m +pipeline=overlap,sequential", ["overlap", "sequential"]),
        ("pipeline.slots=6 +pipeline=overlap", ["overlap"]),
    ],
)
def test_a_pipeline_is_named_with_a_plus_or_without(typed, expected, monkeypatch, tmp_path):
    seen = []

    def main(cfg):
        seen.append(cfg.pipeline)
        return Translated(tmp_path, written=0, skipped=0, score=None)

    monkeypatch.setattr("p2p.commands.infer.main", main)
    monkeypatch.setattr(sys, "argv", ["infer.py", *typed.split(), f"name={os.path.relpath(tmp_path, ROOT / 'runs')}"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    runpy.run_path(str(ROOT / "infer.py"), run_name="__main__")
    assert [pipeline._target_ for pipeline in seen] == [f"p2p.pipelines.{name}.run" for name in expected]
    assert all(pipeline.slots == 6 for pipeline in seen if "slots" in typed)


@pytest.mark.parametrize("override", ["~logger", "logger=[]"])
def test_training_without_a_logger(override, tmp_path, monkeypatch, capsys):
    name = f"name={os.path.relpath(tmp_path, ROOT / 'runs')}"
    fast = ["trainer=cpu", "epochs=1", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1"]
    monkeypatch.setattr(sys, "argv", ["train.py", name, *SMALL, *fast, override])
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert "after training" in capsys.readouterr().out
    left = {".hydra", "checkpoints", "samples", "train.yaml", "training.html", "index.html"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_the_sentence_is_all_that_is_printed():
    _, err = run("export", "nmae=x", code=1)
    assert err.startswith("error: ") and err.count("\n") == 1
    assert f"see all of it with python {ROOT}/export.py --cfg job" in err


def test_the_stack_trace_can_be_had(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    process = start("infer", "device=tpu")
    assert "Traceback" in process.communicate()[1]
    assert process.returncode == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_training_data_is_named(workers, refusal, tmp_path):
    arguments = [f"name={os.path.relpath(tmp_path / 'run', ROOT / 'runs')}", *SMALL, f"data.workers={workers}"]
    arguments += ["data=folder", f"data.root={tmp_path}", "epochs=1"]
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    assert f"there is no image in {tmp_path}/train" in refusal("train", *arguments)
    Image.new("RGB", (64, 32)).save(tmp_path / "val/x.png")
    Image.new("RGB", (64, 32)).save(tmp_path / "train/x.png")
    (tmp_path / "train/y.png").write_bytes(b"broken")
    assert f"cannot read {tmp_path}/train/y.png: it is not an image" in refusal("train", *arguments)
