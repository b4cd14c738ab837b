"""image_size=[height,width] through all commands, against Pillow's resize and the network's own forward pass."""

import json

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

import p2p
from p2p.commands import export, infer, train
from p2p.commands.to_reference import write_reference
from p2p.commands.to_safetensors import write_safetensors
from p2p.deploy.export import load_weights
from p2p.models.inference_view import inference_view
from p2p.pipelines import lightning, overlap, sequential
from p2p.run.record import read_record
from tests.conftest import picture
from tests.test_configs import compose_command

pytestmark = pytest.mark.slow

TINY = ["trainer=cpu", "generator.width=4", "discriminator=pixel", "discriminator.width=4", "epochs=1"]
QUIET = ["~logger", "+trainer.enable_progress_bar=false", "~callbacks.progress"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of 32x64 pixels, on pairs that are higher than wide."""
    folder = tmp_path_factory.mktemp("rectangles")
    for split in ("train", "val"):
        (folder / "pairs" / split).mkdir(parents=True)
        for index in range(2):
            picture(200, 90, seed=index).save(folder / f"pairs/{split}/{index}.png")
    pairs = ["data=folder", f"data.root={folder}/pairs"]
    train.main(compose_command("train", [*TINY, *QUIET, *pairs, "image_size=[32,64]"], folder / "run"))
    return folder / "run"


def network_of(run_dir):
    """The generator of its last checkpoint, float32, with the statistics of each image."""
    record = read_record(run_dir, run_dir / "checkpoints/last.ckpt")
    network = instantiate(record.generator, _convert_="all")
    load_weights(network, run_dir / "checkpoints/last.ckpt")
    return inference_view(network, norm_stats="instance")


def by_hand(network, photo, width, height):
    """An image's output: Pillow resizes, torch does the rest."""
    small = np.array(photo.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1
    with torch.no_grad():
        output = network(torch.from_numpy(small).permute(2, 0, 1)[None])[0]
    return ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def test_pictures_of_a_training_are_rectangles(run_dir):
    (sheet,) = (run_dir / "samples").glob("*.png")
    with Image.open(sheet) as image:
        assert image.width == 8 + 3 * (64 + 8)  # margins, and three frames
    record = read_record(run_dir, run_dir / "checkpoints/last.ckpt")
    assert record.image_size == record.transform.image_size == record.generator.image_size == [32, 64]


def test_all_pipelines_write_what_is_computed_by_hand(run_dir, tmp_path):
    export.main(compose_command("export", ["backend=exported_program", f"output={tmp_path}/e", "device=cpu"], run_dir))
    manifest = json.loads((tmp_path / "e/manifest.json").read_text())
    assert (manifest["image_size"], manifest["input_shape"]) == ([32, 64], [3, 32, 64])
    photos = {"wide": picture(90, 40, seed=5), "high": picture(30, 70, seed=6)}
    (tmp_path / "in").mkdir()
    for name, photo in photos.items():
        photo.save(tmp_path / f"in/{name}.png")
    expected = {name: by_hand(network_of(run_dir), photo, 64, 32) for name, photo in photos.items()}
    written = {}
    for run in (sequential, overlap, lightning):
        name = run.__name__.rpartition(".")[2]
        options = [f"input={tmp_path}/in", f"output={tmp_path}/{name}", f"export={tmp_path}/e", "device=cpu"]
        options += ["pipeline.workers=1"] if run is overlap else []
        infer.main(compose_command("infer", [f"pipeline={name}", *options, "batch_size=2", "gallery=1"], run_dir))
        written[name] = {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")}
        for each, output in expected.items():
            made = np.asarray(Image.open(tmp_path / name / f"{each}.png"))
            assert np.abs(made.astype(int) - output).max() <= 1
    assert written["sequential"] == written["overlap"] == written["lightning"]
    translate = p2p.load(tmp_path / "e", device="cpu")
    assert translate.image_size == [32, 64] and "image_size=[32,64]" in repr(translate)
    made = np.asarray(translate(photos["high"]))
    assert (made == np.asarray(Image.open(tmp_path / "sequential/high.png"))).all()
    assert translate(photos["high"], size="tile").size == (30, 70)


def test_one_size_that_is_not_the_trainings(run_dir, tmp_path):
    options = ["backend=exported_program", f"output={tmp_path}/e", "device=cpu", "size=[64,96]"]
    export.main(compose_command("export", options, run_dir))
    photo = picture(90, 40, seed=5)
    made = np.asarray(p2p.load(tmp_path / "e", device="cpu")(photo))
    assert np.abs(made.astype(int) - by_hand(network_of(run_dir), photo, 96, 64)).max() <= 1


def test_a_file_of_weights_and_the_references_files_are_rectangles(run_dir, tmp_path, capsys):
    photo = picture(90, 40, seed=5)
    expected = by_hand(network_of(run_dir), photo, 64, 32)
    checkpoint = run_dir / "checkpoints/last.ckpt"
    write_safetensors(checkpoint, tmp_path / "a.safetensors")
    published = p2p.load(tmp_path / "a.safetensors")
    assert published.image_size == [32, 64]
    assert np.abs(np.asarray(published(photo)).astype(int) - expected).max() <= 3  # its kernels are float16
    capsys.readouterr()
    write_reference(checkpoint, tmp_path / "reference")
    said = capsys.readouterr().out
    assert "have to be 64x32 pixels already" in said and "--preprocess none" in said and "--crop_size" not in said
    pth = tmp_path / "reference/latest_net_G.pth"
    made = np.asarray(p2p.load(pth, image_size=(32, 64), device="cpu")(photo))
    assert np.abs(made.astype(int) - expected).max() <= 1
    options = [f"ckpt_path={pth}", "image_size=[32,64]", "backend=exported_program", "device=cpu"]
    p2p.export([*options, f"output={tmp_path}/e", f"images_from={run_dir.parent}/pairs/val", "cache_dir=null"])
    assert (np.asarray(p2p.load(tmp_path / "e", device="cpu")(photo)) == made).all()
    with pytest.raises(ValueError, match=r"image_size=\[32,60\] is none, use \[32,32\] or \[32,64\]$"):
        p2p.load(pth, image_size=[32, 60])
    pytest.importorskip("fastapi")
    from p2p.commands import serve

    with pytest.raises(ValueError, match=r"image_size=\[32,60\] is none, use \[32,32\] or \[32,64\]$"):
        serve.main(p2p.compose([str(pth), "image_size=[32,60]", "port=0"], command="serve"))


@pytest.mark.parametrize(
    ("command", "overrides", "sentence"),
    [
        (
            "train",
            "image_size=[100,256]",
            r"image_size=\[100,256\] does not suit a U-Net.* use \[96,256\] or \[128,256\]",
        ),
        ("train", "image_size=[64,66] generator=resnet_9blocks", r"a multiple of 4, .*use \[64,64\] or \[64,68\]"),
        ("train", "image_size=[1,2,3]", r"image_size=\[1,2,3\] is not a size: use \[height,width\] in pixels"),
        ("train", "image_size=[32,96] transform.load_size=64", r"load_size=64 is smaller than image_size=\[32,96\]"),
        ("train", "image_size=[32,64] transform.load_size=[64,80] transform.preprocess=scale_width", "a width alone"),
        ("export", "size=[33,64]", r"size=\[33,64\] does not suit .* multiples of 32, .* use \[32,64\] or \[64,64\]"),
        ("export", "size=[32,64,3]", r"size=\[32,64,3\] is not a size: use"),
        ("export", "size=dynamic max_size=1.5", r"max_size=1\.5 is not a size: use \[height,width\]"),
        ("export", "size=huge", "size=huge is not known: use model, dynamic, or one size"),
        ("export", "image_size=[32,32]", r"image_size=\[32,32\] applies only to a \.pth, and this run has .*\[32,64\]"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else None,
)
def test_a_size_that_cannot_be_is_one_sentence(run_dir, tmp_path, command, overrides, sentence):
    folder = run_dir if command == "export" else tmp_path
    pairs = ["data=folder", f"data.root={run_dir.parent}/pairs", *TINY, *QUIET] if command == "train" else []
    cfg = compose_command(command, [*pairs, *overrides.split()], folder)
    with pytest.raises(Exception, match=sentence) as error:
        {"train": train, "export": export}[command].main(cfg)
    assert isinstance(error.value, ValueError) or isinstance(error.value.__cause__, ValueError)
