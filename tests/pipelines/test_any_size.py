"""size=input and size=tile: every pipeline, mixed folders, and what they are compared with."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.batch import from_frames, to_frames
from p2p.codecs.pillow import decode
from p2p.data.pairs import Pair, Source, find_inputs
from p2p.data.transforms.tiling import grid
from p2p.deploy.backends import exported_program
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export
from p2p.deploy.sizes import Sizes
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet
from p2p.pipelines import groups, lightning, overlap, sequential
from p2p.pipelines.any_size import Tiles, Whole
from tests.conftest import picture
from tests.pipelines.conftest import CPU, Negative, files, stages_for

RUNS = {"sequential": sequential.run, "lightning": lightning.run, "overlap": partial(overlap.run, workers=2)}
NETWORKS = {32: lambda: UNet(image_size=32, width=8), 4: lambda: ResNet(image_size=32, width=4, blocks=1)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`made(stride)`: a network as it is deployed, and a program of it that takes sizes of 32 to 1024."""
    known = {}

    def make(stride):
        if stride not in known:
            folder = tmp_path_factory.mktemp("run") / "export"
            (folder.parent / "last.ckpt").touch()
            torch.manual_seed(0)
            network = NETWORKS[stride]()
            initialize(network, gain=0.2)
            stats = "instance" if stride == 32 else "running"
            export(
                network,
                torch.rand(2, 3, 32, 32),
                folder,
                backend=exported_program.export,
                norm_stats=stats,
                direction="AtoB",
                checkpoint=folder.parent / "last.ckpt",
                device=CPU,
                stride=stride,
                sizes=Sizes([32, 32], [32, 32], [1024, 1024], stride),
            )
            known[stride] = inference_view(network, norm_stats=stats), load_engine(folder, device=CPU)
        return known[stride]

    return make


@pytest.fixture
def folder(tmp_path):
    """Sizes in several groups, halves apart, one turned, of 16 bits, and three that cannot be used."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index, size in enumerate([(64, 40), (33, 32), (60, 50), (96, 64), (20, 10), (130, 70), (62, 34), (64, 64)]):
        picture(*size, seed=index).save(folder / f"{index}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(48, 100).save(folder / "5turned.jpg", exif=exif)
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (40, 50), dtype=np.uint16)).save(folder / "6deep.png")
    np.save(folder / "6floats.npy", np.random.default_rng(0).random((40, 50, 3), dtype=np.float32))
    (folder / "2broken.png").write_bytes(b"broken")
    (folder / "7half.png").write_bytes((folder / "7.png").read_bytes()[:-2000])  # its header is whole
    picture(2000, 10).save(folder / "8wide.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("size", "batch_size"), [("input", 3), ("tile", 1)])
def test_all_pipelines_write_the_same_bytes_at_the_inputs_sizes(made, folder, tmp_path, size, batch_size):
    _, engine = made(32)
    pairs, written, failures = find_inputs(str(folder)), {}, {}
    for name, run in RUNS.items():
        stages = stages_for(engine, tmp_path / name, size=size)
        run(pairs, stages, batch_size=batch_size)
        written[name], failures[name] = files(tmp_path / name), dict(stages.failures)
        assert stages.clock.images["generate"] == len(written[name])
    assert written["sequential"] == written["lightning"] == written["overlap"]
    assert failures["sequential"] == failures["lightning"] == failures["overlap"]
    assert set(failures["overlap"]) == {"2broken", "7half"} | ({"8wide"} if size == "input" else set())
    for pair in pairs:
        if pair.name not in failures["overlap"]:
            height, width, _ = decode(pair.input.path.read_bytes()).shape
            assert decode(written["overlap"][f"{pair.name}.png"]).shape == (height, width, 3)
    if size == "input":
        said = "8wide.png: it is 2000x10 pixels, and the exported program takes 1024x1024 at most"
        assert said in failures["overlap"]["8wide"] and "'max_size=[32,2016]'" in failures["overlap"]["8wide"]


def test_size_input_is_what_the_network_makes_of_the_whole_image(made, tmp_path):
    """By hand: padded by torch, translated by the network itself, cut."""
    network, engine = made(4)
    photo = np.asarray(picture(150, 98, seed=5))
    Image.fromarray(photo).save(tmp_path / "a.png")
    sequential.run(
        [Pair("a", Source(tmp_path / "a.png"))], stages_for(engine, tmp_path / "out", size="input"), batch_size=1
    )
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = network(torch.nn.functional.pad(image, (0, 2, 0, 2), mode="replicate"))[0, :, :98, :150]
    written = decode((tmp_path / "out/a.png").read_bytes())
    assert np.abs(written - ((expected + 1) * 127.5).permute(1, 2, 0).numpy()).max() <= 0.51


def test_halves_of_pairs_are_grouped_by_their_own_sizes(made, folder, tmp_path):
    _, engine = made(32)
    pairs = find_inputs(str(folder), layout="side_by_side")
    for name, run in RUNS.items():
        run(pairs, stages_for(engine, tmp_path / name, size="tile"), batch_size=2)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap") == files(tmp_path / "lightning")
    assert decode((tmp_path / "overlap/5.png").read_bytes()).shape == (70, 65, 3)


def test_images_of_one_size_for_the_network_share_a_batch(made, folder, tmp_path, monkeypatch):
    """Padded to 32s: 64x40, 33x32, 60x50, 64x64, ... are all 64x64."""
    _, engine = made(32)
    seen = []
    frames = engine.frames
    monkeypatch.setattr(engine, "frames", lambda images: seen.append(tuple(images.shape[:3])) or frames(images))
    stages = stages_for(engine, tmp_path / "out", size="input")
    pairs = [pair for pair in find_inputs(str(folder)) if pair.name in "01234567"]
    sequential.run(pairs, stages, batch_size=3)
    assert sorted(seen[1:]) == [(1, 32, 32), (1, 32, 64), (1, 64, 64), (1, 64, 96), (1, 96, 160), (3, 64, 64)]


def test_tiles_of_many_images_fill_a_batch(made, folder, tmp_path, monkeypatch):
    _, engine = made(32)
    seen = []
    frames = engine.frames
    monkeypatch.setattr(engine, "frames", lambda images: seen.append(len(images)) or frames(images))
    pairs = [pair for pair in find_inputs(str(folder)) if pair.name in "01246"]  # 6, 2, 6, 1, 6 tiles
    sequential.run(pairs, stages_for(engine, tmp_path / "out", size="tile"), batch_size=8)
    assert seen[1:] == [8, 8, 5]


def tiled_by_hand(network, photo, tile, overlap, fade, step):
    """A slow reference: every pixel's weights by a formula of its own, in float64."""
    height, width, _ = photo.shape

    def along(side):
        last = -(-max(side - tile, 0) // step) * step
        count = 1 if not last else -(-last // ((tile - overlap) // step * step)) + 1
        return [int(i * (last // step) // max(1, count - 1)) * step for i in range(count)]

    def ramp(starts, index):
        weight = np.ones(tile)
        for other, sign in ((index - 1, 1), (index + 1, -1)):
            if 0 <= other < len(starts):
                middle = (starts[min(index, other)] + tile + starts[max(index, other)]) / 2 - starts[index]
                rise = np.clip((np.arange(tile) + 0.5 - middle) / fade + 0.5, 0, 1)
                weight *= rise if sign > 0 else 1 - rise
        return weight

    rows, columns = along(height), along(width)
    total = np.zeros((rows[-1] + tile, columns[-1] + tile, 3))
    padded = np.pad(photo, ((0, total.shape[0] - height), (0, total.shape[1] - width), (0, 0)), mode="edge")
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            image = torch.from_numpy(padded[top : top + tile, left : left + tile].copy()).permute(2, 0, 1)[None]
            with torch.no_grad():
                made = network(image / 127.5 - 1)[0].permute(1, 2, 0).double().numpy()
            weights = np.outer(ramp(rows, i), ramp(columns, j))[..., None]
            total[top : top + tile, left : left + tile] += weights * ((made + 1) * 127.5)
    return total[:height, :width]


def test_tiles_are_blended_as_by_hand(made, tmp_path):
    network, engine = made(32)
    photo = np.asarray(picture(110, 75, seed=3))
    Image.fromarray(photo).save(tmp_path / "a.png")
    sequential.run(
        [Pair("a", Source(tmp_path / "a.png"))], stages_for(engine, tmp_path / "out", size="tile"), batch_size=4
    )
    written = decode((tmp_path / "out/a.png").read_bytes())
    expected = tiled_by_hand(network, photo, 32, 8, 4, 4)
    assert np.abs(written - expected).max() <= 1.01  # each tile is rounded, and their sum


def test_tiles_equal_the_whole_image_where_the_receptive_field_allows(made):
    """A ResNet of one block sees 25 pixels in each direction; tiles of 416 throw 26 at their borders away."""
    _, engine = made(4)
    photo = np.asarray(picture(900, 420, seed=1))
    outputs = [np.empty_like(photo) for _ in range(2)]
    Whole(engine.manifest.program.sizes).translate([photo], outputs[:1], engine.frames, batch_size=1)
    Tiles((416, 416), 4).translate([photo], outputs[1:], engine.frames, batch_size=2)
    assert np.abs(outputs[0].astype(int) - outputs[1]).max() <= 1
    small = np.empty_like(photo)  # with tiles of 64 it is not
    Tiles((64, 64), 4).translate([photo], [small], engine.frames, batch_size=16)
    assert np.abs(outputs[0].astype(int) - small).max() > 1


def peak_kb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def test_a_large_image_takes_the_memory_of_its_frames_and_little_else():
    """Linux forgets a process's peak if told so. Sums of the whole image, in 32 bits, would take 72 MB."""
    photo = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    output = np.ones_like(photo)  # its pages are there
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kb()
    Tiles((256, 256), 4).translate([photo], [output], lambda tiles: 255 - tiles, batch_size=8)
    assert peak_kb() - before < 40_000
    assert (output == 255 - photo).all()


def test_a_file_that_was_replaced_by_a_larger_one_is_refused(made, folder, tmp_path, monkeypatch):
    """Its place in a slot was laid out by the header that it had."""
    _, engine = made(32)
    stages = stages_for(engine, tmp_path / "out", size="tile")
    monkeypatch.setattr(groups, "size_of", lambda pair, files: (20, 20))
    overlap.run([Pair("0", Source(folder / "0.png"))], stages, batch_size=1, workers=1)
    assert "was replaced meanwhile" in stages.failures["0"] and not files(tmp_path / "out")


def test_a_codec_whose_files_have_no_known_header(tmp_path):
    """Its images are decoded once more, to know their sizes."""

    class Backwards:
        suffix = ".png"

        def decode(self, data, *, channels=3):
            return decode(data[::-1], channels=channels)

        def check_channels(self, channels):
            pass

        def encode(self, frame_HWC):
            from p2p.codecs.pillow import Pillow

            return Pillow().encode(frame_HWC)

    picture(40, 30).save(tmp_path / "a.png")
    (tmp_path / "b.bin").write_bytes((tmp_path / "a.png").read_bytes()[::-1])
    negative = Negative()
    stages = stages_for(negative, tmp_path / "out", codec=Backwards(), image_size=16, size="tile")
    sequential.run([Pair("b", Source(tmp_path / "b.bin"))], stages, batch_size=2)
    assert (decode((tmp_path / "out/b.png").read_bytes()) == 255 - np.asarray(picture(40, 30))).all()


def test_fit_pad_keeps_proportions_and_is_cut_off_again(folder, tmp_path):
    """Wider than high: its border is repeated above and below; restored, it is the image that was resized, and back."""
    pairs = [pair for pair in find_inputs(str(folder)) if pair.name in ("0", "5turned", "6deep")]
    for name, run in RUNS.items():
        for restore in (False, True):
            stages = stages_for(Negative(), tmp_path / f"{name}{restore}", fit="pad", restore_size=restore)
            run(pairs, stages, batch_size=2)
            assert not stages.failures
    for restore in (False, True):
        written = files(tmp_path / f"sequential{restore}")
        assert written == files(tmp_path / f"overlap{restore}") == files(tmp_path / f"lightning{restore}")
    photo = Image.open(folder / "0.png")  # 64x40
    small = 255 - np.asarray(photo.resize((16, 10), Image.Resampling.BICUBIC))
    boxed = decode((tmp_path / "overlapFalse/0.png").read_bytes())
    assert (boxed[3:13] == small).all() and (boxed[:3] == small[:1]).all() and (boxed[13:] == small[-1:]).all()
    restored = Image.fromarray(small).resize((64, 40), Image.Resampling.BICUBIC)
    assert (decode((tmp_path / "overlapTrue/0.png").read_bytes()) == np.asarray(restored)).all()


class Normed(torch.nn.Sequential):
    """Its receptive field is a pixel, and its norm's the image."""

    stride = 4

    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 3, 1), torch.nn.InstanceNorm2d(3, affine=True), torch.nn.Conv2d(3, 3, 1))


def test_instance_norms_go_by_the_whole_image_if_told_so(tmp_path):
    """By hand: the mean over all tiles of what the norm sees in each. By PyTorch's graph, and by a module."""
    torch.manual_seed(0)
    network = Normed().eval()
    (tmp_path / "last.ckpt").touch()
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": tmp_path / "last.ckpt", "stride": 4}
    export(network, torch.rand(1, 3, 32, 32), tmp_path / "e", backend=exported_program.export, device=CPU, **facts)
    engine = load_engine(tmp_path / "e", device=CPU)
    photo = np.asarray(picture(100, 80, seed=2)).copy()
    photo[:, 50:] //= 4
    rows, columns = grid((80, 100), (32, 32), 4)
    padded = np.pad(photo, ((0, 40), (0, 40), (0, 0)), mode="edge")
    tiles = np.stack([padded[y : y + 32, x : x + 32] for y in rows.starts for x in columns.starts])

    with torch.no_grad():
        seen = network[0](torch.from_numpy(tiles).permute(0, 3, 1, 2) / 127.5 - 1)
        mean, variance = seen.mean((0, 2, 3)), seen.var((0, 2, 3), unbiased=False)
        whole = network[0](torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1)
        normed = (whole - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        expected = ((network[2](normed)[0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).numpy()

    def by_module(frames_NHWC):
        with torch.no_grad():
            return to_frames(network(from_frames(frames_NHWC)))

    for generate in (engine.frames, by_module):
        output, apart = np.empty_like(photo), np.empty_like(photo)
        Tiles((32, 32), 4, "image").translate([photo], [output], generate, batch_size=3)
        assert np.abs(output - expected).max() <= 1.01
        Tiles((32, 32), 4).translate([photo], [apart], generate, batch_size=3)
        assert np.abs(apart - expected).max() > 10
    Image.fromarray(photo).save(tmp_path / "a.png")
    for name, run in RUNS.items():
        run(
            [Pair("a", Source(tmp_path / "a.png")), Pair("b", Source(tmp_path / "a.png"))],
            stages_for(engine, tmp_path / name, size="tile", tile_stats="image"),
            batch_size=3,
        )
        assert (decode((tmp_path / name / "b.png").read_bytes()) == output).all()


def test_statistics_of_the_image_need_a_norm_that_takes_them(made, tmp_path):
    stages = stages_for(made(4)[1], tmp_path, size="tile", tile_stats="image")
    with pytest.raises(ValueError, match=r"^tile_stats=image is of instance norms, and the program has none: use tile"):
        stages.warmup(1, images=1)
    stages_for(made(32)[1], tmp_path, size="tile", tile_stats="image").warmup(1, images=1)
