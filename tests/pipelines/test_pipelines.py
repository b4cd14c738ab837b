import signal
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from p2p.codecs.fast import Fast
from p2p.codecs.pillow import Pillow, decode
from p2p.data.pairs import find_inputs
from p2p.data.transforms.torchvision import Torchvision
from p2p.pipelines import lightning, overlap, sequential
from tests.conftest import picture
from tests.pipelines.conftest import files, stages_for

RUNS = {"sequential": sequential.run, "overlap": partial(overlap.run, workers=2)}
ONE_BY_ONE = {"sequential": sequential.run, "lightning": lightning.run}


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_both_write_the_same_bytes(engine, inputs, tmp_path, format, batch_size):
    written = {}
    for name, run in RUNS.items():
        stages = stages_for(engine, tmp_path / name, codec=Pillow(format=format))
        run(find_inputs(str(inputs)), stages, batch_size=batch_size)
        written[name] = files(tmp_path / name)
        for stage in ("decode", "preprocess", "generate", "encode", "write", "e2e"):
            assert stages.clock.images[stage] == 11
            assert stages.clock.seconds[stage] > 0
    assert written["sequential"] == written["overlap"]
    expected = {p.relative_to(inputs).with_suffix(f".{format}").as_posix() for p in inputs.rglob("*.*")}
    assert set(written["overlap"]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("preprocess", ["resize_and_crop", "scale_width_and_crop"])
def test_outputs_at_their_inputs_sizes(engine, inputs, tmp_path, preprocess):
    """Both pipelines, halves of pairs, turned photos, and one that cannot be read before others of its batch."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(48, 30).save(inputs / "00a.jpg", exif=exif)
    (inputs / "01.jpg").write_bytes(b"broken")
    for layout in (None, "side_by_side"):
        pairs = find_inputs(str(inputs), layout=layout)
        written = {}
        for name, run in RUNS.items():
            for restore in (False, True):
                folder = tmp_path / f"{name}{restore}{layout}"
                run(
                    pairs,
                    stages_for(engine, folder, codec=Fast(), preprocess=preprocess, restore_size=restore),
                    batch_size=4,
                )
                written[name, restore] = files(folder)
        assert written["sequential", True] == written["overlap", True]
        assert 5 <= len(written["overlap", True]) < len(pairs)  # without the broken one and pairs of odd width
        for pair in pairs:
            if f"{pair.name}.png" not in written["overlap", True]:
                continue
            width, height = ImageOps.exif_transpose(Image.open(pair.input.path)).size
            size = (width // 2 if layout else width, height)
            small, restored = (decode(written["overlap", restore][f"{pair.name}.png"]) for restore in (False, True))
            assert (restored == np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))).all()


@pytest.fixture
def mixed(inputs):
    """Among the 11: 16-bit and float ones, which travel as float32, and two that cannot be read."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 65536, (32, 32), dtype=np.uint16)).save(inputs / "03b.png")
    np.save(inputs / "05b.npy", rng.random((40, 32, 3), dtype=np.float32))
    (inputs / "02.webp").write_bytes(b"broken")
    (inputs / "00b.jpg").write_bytes(b"")
    return find_inputs(str(inputs))


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 20])
def test_the_same_bytes_of_mixed_depths_and_with_gaps(engine, mixed, tmp_path, batch_size, slots):
    expected = stages_for(engine, tmp_path / "sequential")
    sequential.run(mixed, expected, batch_size=batch_size)
    stages = stages_for(engine, tmp_path / "overlap")
    done = []
    stages.on_image = lambda: done.append(1)
    overlap.run(mixed, stages, batch_size=batch_size, workers=2, slots=slots)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap")
    assert len(files(tmp_path / "overlap")) == 12
    assert list(stages.failures.items()) == list(expected.failures.items())  # in the same order, too
    assert "02.webp: it is not an image" in stages.failures["02"]
    assert len(done) == 14


def test_a_program_of_frames_writes_what_one_of_floats_does(engine, frames_engine, mixed, tmp_path):
    """But of images of high depth, which it rounds before."""
    for name, run in RUNS.items():
        stages = stages_for(frames_engine, tmp_path / name)
        run(mixed, stages, batch_size=5)
        assert stages.clock.images["generate"] == 12 and stages.clock.seconds["generate"] > 0
    sequential.run(mixed, stages_for(engine, tmp_path / "floats"), batch_size=5)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap")
    written, floats = files(tmp_path / "overlap"), files(tmp_path / "floats")
    assert {name for name in floats if written[name] != floats[name]} <= {"03b.png", "05b.png"}


def test_a_batch_of_which_nothing_can_be_read(engine, inputs, tmp_path):
    for path in inputs.glob("*.*"):
        path.write_bytes(b"broken")
    stages = stages_for(engine, tmp_path / "out")
    overlap.run(find_inputs(str(inputs)), stages, batch_size=3, workers=1, slots=1)  # 4 of deep/er come last
    assert sorted(files(tmp_path / "out")) == ["deep/er/00.png", "deep/er/03.png", "deep/er/06.png", "deep/er/09.png"]
    assert len(stages.failures) == 7


def test_the_files_hold_what_the_network_makes_of_the_inputs(engine, inputs, tmp_path):
    """Each stage by hand, one image at a time."""
    overlap.run(find_inputs(str(inputs)), stages_for(engine, tmp_path / "out"), batch_size=4, workers=2)
    for path in inputs.rglob("*.*"):
        frame = torch.from_numpy(Torchvision(image_size=32).eval(decode(path.read_bytes())).numpy())[None]
        expected = ((engine(frame)[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).round()
        written = decode((tmp_path / "out" / path.relative_to(inputs).with_suffix(".png")).read_bytes())
        assert np.abs(written - expected).max() <= 1


class Broken(RuntimeError):
    pass


@pytest.mark.parametrize("batch_size", [1, 5])
def test_lightning_writes_the_same_bytes(engine, mixed, tmp_path, batch_size):
    done = {}
    for name, run in ONE_BY_ONE.items():
        done[name] = stages_for(engine, tmp_path / name)
        run(mixed, done[name], batch_size=batch_size)
    assert files(tmp_path / "sequential") == files(tmp_path / "lightning") != {}
    assert done["sequential"].failures == done["lightning"].failures != {}
    assert done["sequential"].clock.images == done["lightning"].clock.images
    lightning.run([], stages_for(engine, tmp_path / "none"), batch_size=batch_size)


@pytest.mark.parametrize("run", ONE_BY_ONE)
@pytest.mark.parametrize("stage", ["load", "translate", "save"])
def test_an_exception_in_any_stage_ends_the_run_and_leaves_whole_files(engine, inputs, tmp_path, stage, run):
    """Of the overlapped run: test_failures.py."""
    stages = stages_for(engine, tmp_path / "out")
    original, calls = getattr(stages, stage), []

    def broken(*args):
        calls.append(args)
        if len(calls) == 3:
            raise Broken(stage)
        return original(*args)

    setattr(stages, stage, broken)
    with pytest.raises(Broken, match=stage):
        ONE_BY_ONE[run](find_inputs(str(inputs)), stages, batch_size=2)
    for name, data in files(tmp_path / "out").items():
        assert name.endswith(".png")
        assert decode(data).shape == (32, 32, 3)


class Stopped(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("run", ONE_BY_ONE)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_at_once(engine, inputs, tmp_path, run, number):
    """As p2p.config.cli has them: an exception wherever the program is; of the overlapped run: test_failures.py."""

    def stop(number, frame):
        raise Stopped(number)

    stages = stages_for(engine, tmp_path / "out")
    done = []
    stages.on_image = lambda: done.append(1) or (len(done) == 3 and signal.raise_signal(number))
    before = signal.signal(number, stop)
    try:
        with pytest.raises(Stopped, match=str(int(number))):
            ONE_BY_ONE[run](find_inputs(str(inputs)), stages, batch_size=2)
    finally:
        signal.signal(number, before)
    assert len(files(tmp_path / "out")) == 3
    assert all(decode(data).shape == (32, 32, 3) for data in files(tmp_path / "out").values())


def test_an_input_of_another_size_than_the_program_is_named(engine, inputs, tmp_path):
    stages = stages_for(engine, tmp_path / "out", preprocess="none")
    overlap.run(find_inputs(str(inputs)), stages, batch_size=4, workers=2)
    assert len(stages.failures) == 11
    assert (
        "00.png: it is 32x64 after transform.preprocess, and the exported program takes 32x32"
        in stages.failures["deep/er/00"]
    )
