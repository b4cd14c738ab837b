"""Large images by rows: the bytes of whole frames, in the memory of a few rows."""

import subprocess
import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.batch import from_frames, to_frames
from p2p.codecs import tiff_pixels
from p2p.codecs.fast import Fast
from p2p.data.pairs import find_inputs
from p2p.pipelines import lightning, overlap, row_files, sequential, strips
from p2p.system.urls import located
from tests.conftest import ROOT, picture
from tests.pipelines.conftest import Negative, files, stages_for
from tests.pipelines.test_any_size import Normed

RUNS = {"sequential": sequential.run, "lightning": lightning.run, "overlap": partial(overlap.run, workers=1)}


@pytest.fixture
def folder(tmp_path):
    """TIFF of each kind that is read by rows, or is not; others; one that is damaged half-way."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    photo = picture(90, 70)
    photo.save(folder / "0plain.tif")
    photo.save(folder / "1deflate.tif", compression="tiff_adobe_deflate")
    photo.save(folder / "2lzw.tif", compression="tiff_lzw")
    photo.convert("L").save(folder / "3grey.tif")
    photo.convert("RGBA").save(folder / "4alpha.tif")
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (70, 90), np.uint16)).save(folder / "5deep.tif")
    photo.save(folder / "6photo.jpg")
    picture(20, 20).save(folder / "7small.tif")
    (folder / "8cut.tif").write_bytes(tiff_pixels.encode(np.asarray(photo))[:-5000])
    photo.save(folder / "9pages.tif", save_all=True, append_images=[picture(80, 60, seed=1)])
    return folder


@pytest.mark.parametrize(
    "codec", [{"format": "tiff"}, {"format": "tiff", "bits": 16}, {"format": "png"}], ids=lambda options: str(options)
)
def test_the_bytes_are_those_of_whole_frames(folder, tmp_path, monkeypatch, codec):
    pairs = find_inputs(str(folder), pages="all")
    stages = stages_for(Negative(), tmp_path / "whole", codec=Fast(**codec), image_size=16, size="tile")
    sequential.run(pairs, stages, batch_size=3)
    expected, failed = files(tmp_path / "whole"), set(stages.failures)
    assert len(expected) == 10 and failed == {"8cut"}
    monkeypatch.setattr(row_files, "LARGE", 1000)
    by_rows = []
    real = strips.translate
    monkeypatch.setattr(
        strips, "translate", lambda pair, *args, **also: by_rows.append(pair.name) or real(pair, *args, **also)
    )
    for name, run in RUNS.items():
        stages = stages_for(Negative(), tmp_path / name, codec=Fast(**codec), image_size=16, size="tile")
        run(pairs, stages, batch_size=3)
        assert files(tmp_path / name) == expected
        assert set(stages.failures) == {"8cut"} and "8cut.tif: it is damaged" in stages.failures["8cut"]
    whole = {"2lzw", "4alpha", "6photo"} if codec["format"] == "png" else set()
    assert Counter(by_rows) == Counter(3 * [*{pair.name for pair in pairs} - {"7small"} - whole])


def test_the_whole_images_statistics_take_two_passes(tmp_path, monkeypatch):

    torch.manual_seed(0)
    network = Normed().eval()

    class Engine(Negative):
        def frames(self, frames_NHWC):
            with torch.no_grad():
                return to_frames(network(from_frames(frames_NHWC)))

    (tmp_path / "in").mkdir()
    picture(90, 70).save(tmp_path / "in/a.tif")
    for name, large in (("whole", 1 << 25), ("rows", 1000)):
        monkeypatch.setattr(row_files, "LARGE", large)
        stages = stages_for(Engine(), tmp_path / name, codec=Fast(format="tiff"), size="tile", tile_stats="image")
        sequential.run(find_inputs(str(tmp_path / "in")), stages, batch_size=3)
    assert files(tmp_path / "whole") == files(tmp_path / "rows") != {}


def test_what_is_in_a_store_is_read_and_written_whole(folder, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("upath")
    monkeypatch.setattr(row_files, "LARGE", 1000)
    store = fsspec.filesystem("memory")
    store.pipe_file("/large/0plain.tif", (folder / "0plain.tif").read_bytes())
    (tmp_path / "here").mkdir()
    (folder / "0plain.tif").rename(tmp_path / "here/0plain.tif")
    written = []
    for source, output in (("here", "whole"), ("here", "memory://large-out"), ("memory://large", "read")):
        place = located(output if "://" in output else str(tmp_path / output))
        stages = stages_for(Negative(), place, codec=Fast(format="tiff"), image_size=16, size="tile")
        sequential.run(find_inputs(source if "://" in source else str(tmp_path / source)), stages, batch_size=3)
        written.append((place / "0plain.tiff").read_bytes())
    assert written[0] == written[1] == written[2]


def test_a_full_disk_ends_the_run_and_leaves_nothing(folder, small_disk, monkeypatch):
    monkeypatch.setattr(row_files, "LARGE", 1000)
    picture(400, 300).save(folder / "0plain.tif")
    stages = stages_for(Negative(), small_disk / "out", codec=Fast(format="tiff"), image_size=16, size="tile")
    with pytest.raises(OSError, match="No space left") as error:
        sequential.run(find_inputs(str(folder))[:1], stages, batch_size=3)
    assert error.value.filename.endswith("out/0plain.tiff") and not files(small_disk)


def test_a_name_that_is_a_folder_fails_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "LARGE", 1000)
    (tmp_path / "out/0plain.tiff/x").mkdir(parents=True)
    stages = stages_for(Negative(), tmp_path / "out", codec=Fast(format="tiff"), image_size=16, size="tile")
    sequential.run(find_inputs(str(folder))[:2], stages, batch_size=3)
    assert set(stages.failures) == {"0plain"} and [*files(tmp_path / "out")] == ["1deflate.tiff"]


CHILD = """
import sys
from pathlib import Path
from p2p.codecs.fast import Fast
from p2p.data.pairs import Pair, Source
from p2p.pipelines import {pipeline}
from tests.pipelines.conftest import Negative, stages_for
from tests.pipelines.test_any_size import peak_kb

class Engine(Negative):
    manifest = Negative.manifest
manifest = Engine.manifest
manifest.input_shape = manifest.output_shape = [3, 256, 256]
stages = stages_for(Engine(), Path(sys.argv[2]), codec=Fast(format="tiff"), image_size=256, size="tile")
stages.warmup(4, images=1)
Path("/proc/self/clear_refs").write_text("5")  # or the peak of the parent, of which this is a fork, counts
before = peak_kb()
{pipeline}.run([Pair("a", Source(Path(sys.argv[1])))], stages, batch_size=4)
assert not stages.failures, stages.failures
print(peak_kb() - before)
"""


def peak_kb(path, output, pipeline):
    """Memory that a process takes for an image, over its start."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(pipeline=pipeline), str(path), str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_a_large_tiff_takes_the_memory_of_a_few_rows_of_tiles(tmp_path):
    """34 megapixels, 4 MB each frame's row of tiles, and 12 MB its sums; of whole frames each would have 101 MB."""
    tile = np.asarray(picture(5600, 500))
    with (tmp_path / "a.tif").open("wb") as file:
        rows = tiff_pixels.RowsFile(file.fileno(), (6000, 5600, 3), np.dtype(np.uint8))
        for top in range(0, 6000, 500):
            rows[top : top + 500] = tile
    assert peak_kb(tmp_path / "a.tif", tmp_path / "out", "sequential") < 120_000
    image = np.asarray(Image.open(tmp_path / "out/a.tiff"))
    assert all((image[top : top + 500] == 255 - tile).all() for top in range(0, 6000, 500))


@pytest.mark.soak
@pytest.mark.parametrize("pipeline", ["sequential", "overlap"])
def test_a_tiff_of_300_megapixels(tmp_path, pipeline):
    """900 MB each frame; a row of tiles has 15 MB, and its sums 62 MB."""
    tile = np.asarray(picture(20_000, 1000))
    with (tmp_path / "a.tif").open("wb") as file:
        rows = tiff_pixels.RowsFile(file.fileno(), (15_000, 20_000, 3), np.dtype(np.uint8))
        for top in range(0, 15_000, 1000):
            rows[top : top + 1000] = tile
    assert peak_kb(tmp_path / "a.tif", tmp_path / "out", pipeline) < 250_000
    image = np.asarray(Image.open(tmp_path / "out/a.tiff"))
    assert all((image[top : top + 1000] == 255 - tile).all() for top in range(0, 15_000, 1000))
