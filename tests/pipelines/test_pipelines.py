import errno
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from p2p.batch import from_frames
from p2p.codecs.fast import Fast
from p2p.codecs.pillow import Pillow, decode
from p2p.data.pairs import Pair, Source, find_inputs
from p2p.data.transforms.torchvision import Torchvision
from p2p.pipelines import overlap, sequential
from p2p.pipelines.files import to_size
from p2p.pipelines.slots import DEEP, ROW
from p2p.pipelines.tickets import LOAD, SAVE
from p2p.pipelines.translator import Rows, gather
from p2p.pipelines.workers import Workers
from tests.conftest import picture
from tests.pipelines.codecs import Codec
from tests.pipelines.conftest import Negative, children, files, stages_for

RUNS = {"sequential": sequential.run, "overlap": partial(overlap.run, workers=2)}


@pytest.fixture(params=[1, 99], ids=["turns", "overlap"])
def cores(request, monkeypatch):
    """With an engine on every core, which takes turns with the workers, and on some."""
    monkeypatch.setattr(overlap, "available_cores", lambda: request.param)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_both_write_the_same_bytes(engine, inputs, tmp_path, format, batch_size):
    written = {}
    for name, run in RUNS.items():
        stages = stages_for(engine, tmp_path / name, codec=Pillow(format=format))
        run(find_inputs(str(inputs)), stages, batch_size=batch_size)
        written[name] = files(tmp_path / name)
        for stage in ("decode", "preprocess", "generate", "postprocess", "encode", "write", "e2e"):
            assert stages.clock.images[stage] == 11
            assert stages.clock.seconds[stage] > 0
    assert written["sequential"] == written["overlap"]
    expected = {p.relative_to(inputs).with_suffix(f".{format}").as_posix() for p in inputs.rglob("*.*")}
    assert set(written["overlap"]) == expected


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


def test_other_channels_at_another_size():
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 5), dtype=np.uint8)
    planes = [Image.fromarray(frame[..., c]).resize((13, 21), Image.Resampling.BICUBIC) for c in range(5)]
    result = to_size(frame, 21, 13)
    assert result.dtype == np.uint8 and result.shape == (21, 13, 5)
    assert (result == np.stack(planes, axis=2)).all()


@pytest.fixture
def mixed(inputs):
    """Among the 11: 16-bit and float ones, which travel as float32, and two that cannot be read."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 65536, (32, 32), dtype=np.uint16)).save(inputs / "03b.png")
    np.save(inputs / "05b.npy", rng.random((40, 32, 3), dtype=np.float32))
    (inputs / "02.webp").write_bytes(b"broken")
    (inputs / "00b.jpg").write_bytes(b"")
    return find_inputs(str(inputs))


@pytest.mark.usefixtures("cores")
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


@pytest.mark.usefixtures("cores")
def test_a_program_of_frames_writes_what_one_of_floats_does(engine, frames_engine, mixed, tmp_path):
    """But of deep images, which it rounds before."""
    for name, run in RUNS.items():
        stages = stages_for(frames_engine, tmp_path / name)
        run(mixed, stages, batch_size=5)
        for stage in ("generate", "postprocess"):
            assert stages.clock.images[stage] == 12 and stages.clock.seconds[stage] > 0
    sequential.run(mixed, stages_for(engine, tmp_path / "floats"), batch_size=5)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap")
    written, floats = files(tmp_path / "overlap"), files(tmp_path / "floats")
    assert {name for name in floats if written[name] != floats[name]} <= {"03b.png", "05b.png"}


@pytest.mark.usefixtures("cores")
def test_a_batch_of_which_nothing_can_be_read(engine, inputs, tmp_path):
    for path in inputs.glob("*.*"):
        path.write_bytes(b"broken")
    stages = stages_for(engine, tmp_path / "out")
    overlap.run(find_inputs(str(inputs)), stages, batch_size=3, workers=1, slots=1)  # 4 of deep/er come last
    assert sorted(files(tmp_path / "out")) == ["deep/er/00.png", "deep/er/03.png", "deep/er/06.png", "deep/er/09.png"]
    assert len(stages.failures) == 7


def test_what_a_slot_holds_as_the_engine_sees_it():
    """Against the images one by one; without gaps and depth it is the slot itself, not a copy."""
    rng = np.random.default_rng(0)
    frames, deep = rng.integers(0, 256, (2, 4, 3, 3, 1), dtype=np.uint8), rng.random((2, 4, 3, 3, 1), np.float32)
    for rows, floats in (([0, 1, 2], []), ([1, 3], []), ([0, 2, 3], [2]), ([1], [1])):
        found = np.zeros(4, ROW)
        found["state"][floats] = DEEP
        seen = from_frames(gather(Rows(1, [], found), rows, frames, deep))
        for image, row in zip(seen, rows, strict=True):
            expected = deep[1, row] if row in floats else frames[1, row].astype(np.float32) / np.float32(127.5) - 1
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert gather(Rows(1, [], np.zeros(4, ROW)), [0, 1], frames, deep).data_ptr() == frames[1].ctypes.data


def test_the_files_hold_what_the_network_makes_of_the_inputs(engine, inputs, tmp_path):
    """Each stage by hand, one image at a time."""
    overlap.run(find_inputs(str(inputs)), stages_for(engine, tmp_path / "out"), batch_size=4, workers=2)
    for path in inputs.rglob("*.*"):
        frame = torch.from_numpy(Torchvision(image_size=32).eval(decode(path.read_bytes())).numpy())[None]
        expected = ((engine(frame)[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).round()
        written = decode((tmp_path / "out" / path.relative_to(inputs).with_suffix(".png")).read_bytes())
        assert np.abs(written - expected).max() <= 1


@pytest.mark.parametrize("without", [None, "O_TMPFILE", "the file system's support"])
def test_a_file_is_new_or_replaced_wherever_it_is_written(tmp_path, monkeypatch, without):
    if without == "O_TMPFILE":
        monkeypatch.delattr(os, "O_TMPFILE")
    elif without:

        def refuse(path, flags, *mode):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr("p2p.pipelines.files.os.open", refuse)
    stages = stages_for(Negative(), tmp_path / "out", codec=Pillow(format="npy"), image_size=16)
    for value in (1, 2):
        stages.save("deep/x", np.full((16, 16, 3), value, np.uint8), (16, 16))
        assert (np.load(tmp_path / "out/deep/x.npy") == value).all()
    assert list(files(tmp_path / "out")) == ["deep/x.npy"]
    assert (tmp_path / "out/deep/x.npy").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Broken(RuntimeError):
    pass


@pytest.mark.parametrize("stage", ["load", "translate", "save"])
def test_an_exception_in_any_stage_ends_the_sequential_run_and_leaves_whole_files(engine, inputs, tmp_path, stage):
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
        sequential.run(find_inputs(str(inputs)), stages, batch_size=2)
    for name, data in files(tmp_path / "out").items():
        assert name.endswith(".png")
        assert decode(data).shape == (32, 32, 3)


@pytest.mark.parametrize("named", [False, True])
def test_a_failed_write_leaves_no_part_of_a_file(engine, inputs, tmp_path, monkeypatch, named):
    stages = stages_for(engine, tmp_path / "out")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if named:
        monkeypatch.setattr("p2p.pipelines.files.nameless", lambda *_: False)
    monkeypatch.setattr("pathlib.Path.replace" if named else "os.link", full)
    with pytest.raises(OSError, match="No space left"):
        sequential.run(find_inputs(str(inputs)), stages, batch_size=2)
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("reason", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT])
def test_where_files_cannot_be_linked_they_are_renamed(engine, inputs, tmp_path, monkeypatch, reason):
    def refuse(*_, **__):
        raise OSError(reason, "no link")

    monkeypatch.setattr("os.link", refuse)
    stages = stages_for(engine, tmp_path / "out")
    sequential.run(find_inputs(str(inputs)), stages, batch_size=2)
    assert files(tmp_path / "out") and not stages.failures
    assert all(name.endswith(".png") and not name.startswith(".") for name in files(tmp_path / "out"))


def test_a_batch_may_be_large_and_fail_at_length(tmp_path):
    """The reasons of 2,000 images that are not there are more than a pipe holds."""
    stages = stages_for(Negative(), tmp_path / "out", image_size=16)
    pairs = [Pair(f"{index:04d}", Source(tmp_path / "not-there" / f"{index:04d}.png")) for index in range(2100)]
    overlap.run(pairs, stages, batch_size=2000, workers=1)
    assert list(stages.failures) == [pair.name for pair in pairs]
    assert all(f"{name}.png: No such file" in reason for name, reason in stages.failures.items())


def test_a_slow_disk_slows_the_reader(many, tmp_path, monkeypatch):
    """However slow the writers are, no more images are on their way than the slots hold."""
    stages = stages_for(Negative(), tmp_path / "out", codec=Codec("encode", "slow", at=None), image_size=16)
    ahead, done, submit = [0], [], Workers.submit

    def counted(self, task):
        if task.kind == LOAD:
            ahead.append(ahead[-1] + task.count)
            assert ahead[-1] - len(done) <= 2 * 2 * 3  # two rings of two batches of three
        submit(self, task)

    monkeypatch.setattr(Workers, "submit", counted)
    stages.on_image = lambda: done.append(1)
    overlap.run(many(60), stages, batch_size=3, slots=2, workers=2)
    assert len(done) == len(files(tmp_path / "out")) == 60


def test_overlap_really_overlaps(many, tmp_path, monkeypatch):
    """While the engine translates, a worker is seen to load and another one to save."""
    engine_spans, spans, answers = [], [], Workers.answers

    class Slow(Negative):
        def __call__(self, input_NCHW):
            begin = time.perf_counter_ns()
            time.sleep(0.02)
            engine_spans.append((begin, time.perf_counter_ns()))
            return -input_NCHW

    def watched(self, **options):
        for task, note in answers(self, **options):
            spans.extend((task.kind, stage, begin, end) for stage, _, begin, end, _ in note.spans)
            yield task, note

    monkeypatch.setattr(Workers, "answers", watched)
    monkeypatch.setattr(overlap, "available_cores", lambda: 99)
    stages = stages_for(Slow(), tmp_path / "out", image_size=16)
    stages.clock.keep_spans()  # or they come added up
    overlap.run(many(60), stages, batch_size=3, workers=2)
    for kind, stage in ((LOAD, "decode"), (SAVE, "encode")):
        inside = [
            1
            for found, name, begin, end in spans
            if (found, name) == (kind, stage) and any(a < begin and end < b for a, b in engine_spans)
        ]
        assert len(inside) > 10


def test_an_engine_on_every_core_works_while_no_worker_does(many, tmp_path, monkeypatch):
    """Or they would take the cores from each other."""
    pools, engine_calls, init = [], [], Workers.__init__

    class Watching(Negative):
        def __call__(self, input_NCHW):
            engine_calls.append(pools[0].handed_out if pools else 0)
            return -input_NCHW

    def watched(self, *args, **options):
        init(self, *args, **options)
        pools.append(self)

    monkeypatch.setattr(Workers, "__init__", watched)
    monkeypatch.setattr(overlap, "available_cores", lambda: 1)
    overlap.run(many(40), stages_for(Watching(), tmp_path / "out", image_size=16), batch_size=2, slots=4, workers=2)
    assert len(files(tmp_path / "out")) == 40
    assert engine_calls == [0] * 21  # the warm-up's, too


def rss_kb():
    """Memory of this process and its workers, once what they share, in KB."""
    total = 0
    for pid in (os.getpid(), *children(os.getpid())):
        kinds = ("RssAnon", "RssShmem") if pid == os.getpid() else ("RssAnon",)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            total += int(line.split()[1]) if line.startswith(kinds) else 0
    return total


def test_memory_does_not_grow_with_the_number_of_images(many, tmp_path):
    samples = []
    stages = stages_for(Negative(), tmp_path / "out", codec=Pillow(format="npy"), image_size=16)
    stages.on_image = lambda: samples.append(rss_kb() if len(samples) % 20 == 0 else 0)
    overlap.run(many(3000), stages, batch_size=8, slots=2, workers=2)
    first, last = max(samples[375:750]), max(samples[-750:])
    assert first > 10_000  # a NumPy in each worker
    assert last - first < 500  # 2250 images of 768 bytes and their names would be 2 MB


def test_few_images_start_no_process(many, tmp_path, monkeypatch):
    monkeypatch.setattr("p2p.pipelines.overlap.Workers", None)
    for count, batch_size in ((0, 1), (64, 16), (128, 128)):
        overlap.run(many(count), stages_for(Negative(), tmp_path / str(count), image_size=16), batch_size=batch_size)
        assert len(files(tmp_path / str(count))) == count
    with pytest.raises(TypeError, match="NoneType"):
        overlap.run(many(65), stages_for(Negative(), tmp_path / "65", image_size=16), batch_size=1)


def test_nothing_to_do_is_no_mistake(tmp_path):
    """As with skip_existing=true, where all is there, whatever pipeline.workers says."""
    overlap.run([], stages_for(Negative(), tmp_path / "out", image_size=16), batch_size=4, workers=2)
    assert files(tmp_path) == {}


@pytest.mark.parametrize(("option", "value"), [("slots", 0), ("workers", -1)])
def test_options_out_of_range(many, tmp_path, option, value):
    with pytest.raises(ValueError, match=rf"pipeline\.{option}={value} is too small"):
        overlap.run(many(1), stages_for(Negative(), tmp_path, image_size=16), batch_size=1, **{option: value})


def test_an_input_of_another_size_than_the_program_is_named(engine, inputs, tmp_path):
    stages = stages_for(engine, tmp_path / "out", preprocess="none")
    overlap.run(find_inputs(str(inputs)), stages, batch_size=4, workers=2)
    assert len(stages.failures) == 11
    assert (
        "00.png: it is 32x64 after transform.preprocess, and the exported program takes 32x32"
        in stages.failures["deep/er/00"]
    )
