"""backend=fastest with backends made for the purpose: what each does is known, so what must be kept is, too."""

import sys
import time
from types import ModuleType

import pytest
import torch
from torch import nn

from p2p.deploy import fastest, timing
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export
from p2p.deploy.manifest import Program, versions
from p2p.deploy.timing import median_seconds
from p2p.report.tables import show_considered

CPU = torch.device("cpu")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()).eval()


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(5, 3, 8, 8) * 2 - 1


@pytest.fixture
def backends(monkeypatch):
    """Modules of p2p.deploy: two that work, and one for each way in which a backend can drop out."""
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr("p2p.deploy.engine.names", lambda: ["slow", "quick"])

    def add(name, *, seconds=0.0, error=0.0, missing=None, fails=None, load_fails=None, gpu=None):
        def export(generator, example_NCHW, folder, *, precision=None, min_batch=1, max_batch=None):
            if fails:
                raise RuntimeError(fails)
            assert min_batch == max_batch
            torch.save(generator, folder / f"{name}.bin")
            generator[0].weight.data.zero_()  # what it gets is its own
            dtype = {None: "float32", "bf16": "bfloat16"}[precision]
            return Program(name, f"{name}.bin", dtype, max_batch, versions(), gpu, min_batch)

        def load(program, folder, *, device):
            if load_fails:
                raise OSError(load_fails)
            loaded = torch.load(folder / program.file, weights_only=False)

            def run(input_NCHW):
                assert len(input_NCHW) == 4
                time.sleep(seconds)
                output = loaded(input_NCHW.float())
                output[-1] += error  # one image of the batch is wrong
                return output

            return run

        module = ModuleType(f"p2p.deploy.backends.{name}")
        module.export, module.load, module.unavailable, module.VERSIONS = export, load, lambda: missing, {}
        monkeypatch.setitem(sys.modules, module.__name__, module)

    add("slow", seconds=0.02)
    add("quick", seconds=0.002)
    add("wrong", error=0.05)  # 32 dB
    add("nan", error=float("nan"))
    add("absent", missing="there is no such library")
    add("failing", fails="cannot build\nbecause of a bug")
    add("unloadable", load_fails="cannot read it")
    add("gpu_only", gpu="NVIDIA H100")


def run(network, images, folder, names, **options):
    folder.mkdir(parents=True)
    return fastest.export(network, images, folder, batch_size=4, backends=names, device="cpu", **options)


def test_the_fastest_of_those_that_are_close_enough_is_kept(backends, network, images, tmp_path, capsys):
    names = ["absent", "slow", "failing", "wrong", "quick", "nan", "unloadable", "gpu_only"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    program = run(network, images, tmp_path / "x", names)
    assert (program.backend, program.min_batch, program.max_batch) == ("quick", 4, 4)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["quick.bin"]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    rows = {row["backend"]: row for row in program.considered}
    assert list(rows) == names
    assert float(rows["slow"]["verdict"].removesuffix("x")) == pytest.approx(
        rows["slow"]["batch_ms"] / rows["quick"]["batch_ms"], abs=0.01
    )
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "absent": "there is no such library",
        "slow": rows["slow"]["verdict"],
        "failing": "cannot build",
        "wrong": "32.0 dB is below min_psnr=40",  # 20 log10(2 / 0.05)
        "quick": "kept",
        "nan": "nan dB is below min_psnr=40",
        "unloadable": f"{tmp_path}/x/unloadable/unloadable.bin cannot be loaded, because cannot read it:"
        " export again on this machine",
        "gpu_only": "it runs on a GPU, and device=cpu",
    }
    for name in ("slow", "quick"):
        assert rows[name]["images_per_s"] == pytest.approx(4000 / rows[name]["batch_ms"], rel=0.01)
        assert rows[name]["worst_psnr"] == 120.0
    assert rows["slow"]["batch_ms"] >= 20 > rows["quick"]["batch_ms"] >= 2
    assert rows["wrong"]["worst_psnr"] == 32.04 and rows["nan"]["worst_psnr"] is None
    assert rows["absent"]["batch_ms"] is None and rows["wrong"]["batch_ms"] is None
    show_considered(program.considered, batch_size=4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("│") and " fp32 " in line] == ["quick", "slow"]
    assert "absent left out: there is no such library" in lines
    assert [line.split()[0] for line in lines if " left out: " in line] == ["absent", *names[2:4], *names[5:]]


def test_a_lower_gate_and_another_precision(backends, network, images, tmp_path):
    program = run(network, images, tmp_path / "x", ["wrong", "slow"], min_psnr=30)
    assert program.backend == "wrong"
    program = run(network, images, tmp_path / "y", ["slow"], precision="bf16", min_psnr=20)
    assert (program.dtype, program.considered[0]["precision"]) == ("bfloat16", "bf16")


def test_none_left_is_one_sentence(backends, network, images, tmp_path):
    match = r"no backend can export .* here \(absent: there is no such library; wrong: 32\.0 dB .*; nowhere: No module"
    with pytest.raises(ValueError, match=match) as raised:
        run(network, images, tmp_path / "x", ["absent", "wrong", "nowhere"])
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="batch_size=0 is too small"):
        fastest.export(network, images, tmp_path, batch_size=0)


def test_the_artifact_records_what_was_considered_also_from_the_cache(backends, network, images, tmp_path, caplog):
    caplog.set_level("INFO")
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.touch()

    def backend(generator, example_NCHW, folder):
        names = ["slow", "quick"]
        return fastest.export(generator, example_NCHW, folder, batch_size=4, backends=names, device="cpu")

    facts = {"norm_stats": "running", "direction": "AtoB", "checkpoint": checkpoint, "device": CPU}
    made = [
        export(network, images, tmp_path / name, backend=backend, cache_dir=tmp_path / "cache", **facts)
        for name in ("one", "two")
    ]
    assert "taken from the build cache" in caplog.text
    assert made[0].program == made[1].program
    assert made[1].program.considered[1]["verdict"] == "kept"
    engine = load_engine(tmp_path / "two", device=CPU)
    torch.testing.assert_close(engine(images[:3]), network(images[:3]).detach())
    with pytest.raises(ValueError, match="export again with batch_size=5"):
        engine.check_batch_size(5)


def test_times_are_medians_and_turns_are_taken():
    """On a clock that only the functions move: the second one stalls once, for a hundred times as long."""
    clock, calls = [0.0], []

    def work(name, seconds):
        def run(batch):
            calls.append(name)
            stalls = name == "b" and calls.count("b") == 10
            clock[0] += seconds * (100 if stalls else 1)

        return run

    batches = {"a": (work("a", 0.5), torch.zeros(1)), "b": (work("b", 0.25), torch.zeros(1))}
    taken = median_seconds(batches, device=CPU, rounds=9, clock=lambda: clock[0])
    assert taken == {"a": 0.5, "b": 0.25}
    assert calls[-18:] == ["a", "b"] * 9
