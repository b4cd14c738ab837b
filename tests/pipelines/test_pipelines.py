import threading
import time
from functools import partial

import numpy as np
import pytest
import torch

from p2p.codecs.pillow import Pillow, decode
from p2p.data.pairs import find_inputs
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy import exported_program
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.pipelines import overlap, sequential
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock
from tests.conftest import picture

CPU = torch.device("cpu")
RUNS = {"sequential": sequential.run, "overlap": partial(overlap.run, readers=2, writers=2)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "export"
    checkpoint = folder.parent / "last.ckpt"
    checkpoint.touch()
    torch.manual_seed(0)
    network = UNet(image_size=32, width=8)
    initialize(network, gain=0.2)
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CPU}
    export(network, torch.rand(1, 3, 32, 32), folder, backend=exported_program.export, **facts)
    return load_engine(folder, device=CPU)


@pytest.fixture
def inputs(tmp_path):
    """11 images of several sizes and formats, two folders deep."""
    folder = tmp_path / "inputs"
    for index in range(11):
        path = folder / ("deep/er" if index % 3 == 0 else ".") / f"{index:02d}{('.png', '.jpg', '.webp')[index % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40 + index, 50, seed=index).save(path)
    return folder


def stages_for(engine, output, **codec):
    return Stages(
        engine=engine, transform=Torchvision(image_size=32), codec=Pillow(**codec), output=output, clock=Clock()
    )


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_both_write_the_same_bytes(engine, inputs, tmp_path, format, batch_size):
    written = {}
    for name, run in RUNS.items():
        stages = stages_for(engine, tmp_path / name, format=format)
        run(find_inputs(str(inputs)), stages, batch_size=batch_size)
        written[name] = files(tmp_path / name)
        for stage in ("decode", "preprocess", "generate", "postprocess", "encode", "write"):
            assert stages.clock.images[stage] == 11
    assert written["sequential"] == written["overlap"]
    expected = {p.relative_to(inputs).with_suffix(f".{format}").as_posix() for p in inputs.rglob("*.*")}
    assert set(written["overlap"]) == expected


def test_the_files_hold_what_the_network_makes_of_the_inputs(engine, inputs, tmp_path):
    """Each stage by hand, one image at a time."""
    overlap.run(find_inputs(str(inputs)), stages_for(engine, tmp_path / "out"), batch_size=4)
    for path in inputs.rglob("*.*"):
        frame = torch.from_numpy(Torchvision(image_size=32).eval(decode(path.read_bytes())).numpy())[None]
        expected = ((engine(frame)[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).round()
        written = decode((tmp_path / "out" / path.relative_to(inputs).with_suffix(".png")).read_bytes())
        assert np.abs(written - expected).max() <= 1


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_an_unreadable_input_costs_no_other(engine, inputs, tmp_path, run):
    (inputs / "02.webp").write_bytes(b"broken")
    (inputs / "00b.jpg").write_bytes(b"")
    stages = stages_for(engine, tmp_path / "out")
    run(find_inputs(str(inputs)), stages, batch_size=1)
    assert len(files(tmp_path / "out")) == 10
    assert set(stages.failures) == {"02", "00b"}
    assert "02.webp: it is not an image" in stages.failures["02"]


class Broken(RuntimeError):
    pass


@pytest.mark.parametrize("stage", ["load", "translate", "save"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_an_exception_in_any_stage_ends_the_run_and_leaves_whole_files(engine, inputs, tmp_path, run, stage):
    stages = stages_for(engine, tmp_path / "out")
    original, calls = getattr(stages, stage), []

    def broken(*args):
        calls.append(args)
        if len(calls) == 3:
            raise Broken(stage)
        return original(*args)

    setattr(stages, stage, broken)
    before = threading.active_count()
    with pytest.raises(Broken, match=stage):
        run(find_inputs(str(inputs)), stages, batch_size=2)
    assert threading.active_count() == before
    for name, data in files(tmp_path / "out").items():
        assert name.endswith(".png")
        assert decode(data).shape == (32, 32, 3)


def test_a_failed_write_leaves_no_part_of_a_file(engine, inputs, tmp_path, monkeypatch):
    stages = stages_for(engine, tmp_path / "out")
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        overlap.run(find_inputs(str(inputs)), stages, batch_size=2)
    assert files(tmp_path / "out") == {}


def test_overlap_keeps_to_its_slots(engine, inputs, tmp_path):
    """However slow the writers are, at most `slots` batches are loaded ahead and as many wait to be written."""
    stages = stages_for(engine, tmp_path / "out")
    load, save = stages.load, stages.save
    loaded, saved, ahead = [], [], []

    def counted_load(pair):
        loaded.append(pair)
        ahead.append(len(loaded) - len(saved))
        return load(pair)

    def slow_save(*args):
        time.sleep(0.02)
        save(*args)
        saved.append(args)

    stages.load, stages.save = counted_load, slow_save
    overlap.run(find_inputs(str(inputs)), stages, batch_size=1, slots=2, readers=2, writers=1)
    assert len(saved) == 11
    assert max(ahead) <= 2 + 2 + 1  # loaded, being saved, and the one in the engine
    with pytest.raises(ValueError, match=r"pipeline\.slots=0"):
        overlap.run([], stages, batch_size=1, slots=0)


def test_overlap_really_overlaps(engine, inputs, tmp_path):
    """While the engine translates, a reader and a writer are seen at work."""
    stages = stages_for(engine, tmp_path / "out")
    busy, seen = set(), []

    def watch(name):
        original = getattr(stages, name)

        def watched(*args):
            busy.add(name)
            time.sleep(0.01)
            seen.append(frozenset(busy))
            try:
                return original(*args)
            finally:
                busy.discard(name)

        setattr(stages, name, watched)

    for name in ("load", "translate", "save"):
        watch(name)
    overlap.run(find_inputs(str(inputs)), stages, batch_size=1, readers=1, writers=1)
    assert frozenset({"load", "translate", "save"}) in seen


def test_an_input_of_another_size_than_the_program_is_named(engine, inputs, tmp_path):
    stages = stages_for(engine, tmp_path / "out")
    stages.transform = Torchvision(image_size=32, preprocess="none")
    overlap.run(find_inputs(str(inputs)), stages, batch_size=4)
    assert len(stages.failures) == 11
    assert (
        "00.png: it is 32x64 after transform.preprocess, and the exported program takes 32x32"
        in stages.failures["deep/er/00"]
    )
