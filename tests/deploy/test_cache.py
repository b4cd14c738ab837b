import json
import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from p2p.deploy import cache, cache_key, fastest
from p2p.deploy.cache import build, duration
from p2p.deploy.cache_key import key, sources
from p2p.deploy.manifest import Program
from p2p.deploy.rewrite import Frames

CPU = torch.device("cpu")
IMAGES = torch.zeros(2, 3, 8, 8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3)).eval()


def backend(network, images_NCHW, folder, *, precision=None):
    (folder / "generator.bin").write_bytes(b"program")
    (folder / "kernels").write_bytes(b"more")
    return Program("backend", "generator.bin", precision or "float32", None, {"torch": "2.14"})


def another(network, images_NCHW, folder, *, precision=None):
    return backend(network, images_NCHW, folder)


class Counting:
    """`backend`, which also counts."""

    def __init__(self):
        self.calls = 0
        self.__module__, self.__qualname__ = "tests", "Counting"

    def __call__(self, network, images_NCHW, folder):
        self.calls += 1
        return backend(network, images_NCHW, folder)


def changed(network, change):
    """A copy of the key's ingredients of which one differs."""
    images, function = IMAGES, partial(backend, precision="fp16")
    if change == "weight":
        with torch.no_grad():
            network[0].weight[3, 2, 1, 1] += 1e-7
    elif change == "dtype":
        network = network.bfloat16()
        images = images.bfloat16()
    elif change == "structure":
        network[1] = nn.Tanh()
    elif change == "structure without weights":
        network[3].padding = (1, 1)
    elif change == "size":
        images = torch.zeros(2, 3, 8, 16)
    elif change == "frames":
        network, images = Frames(network), torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    elif change == "backend":
        function = partial(another, precision="fp16")
    elif change == "argument":
        function = partial(backend, precision="bf16")
    elif change == "arguments":
        function = backend
    return function, network, images


def test_what_int8_is_fitted_to_and_the_fastest_judged_by_is_in_the_key(network):
    for chosen in (partial(backend, precision="int8"), partial(fastest.export, batch_size=1)):
        keys = {key(chosen, network, IMAGES[:1] + shift, device=CPU) for shift in (0, 0, 1)}
        assert len(keys) == 2


def test_the_sources_of_a_backend_from_elsewhere_are_in_the_key(network, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/graphs.py").write_text("def export(network, images, folder):\n    ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    from elsewhere.graphs import export

    keys = []
    for text in ("A = 1\n", "A = 1\n", "A = 2\n"):
        (tmp_path / "elsewhere/kernels.py").write_text(text)
        tried = partial(fastest.export, backends=["elsewhere.graphs", "eager", "nowhere.at_all"])
        keys.append([key(chosen, network, IMAGES, device=CPU) for chosen in (export, tried)])
    assert keys[0] == keys[1]
    assert all(before != after for before, after in zip(keys[1], keys[2], strict=True))


CHANGES = ["weight", "dtype", "structure", "structure without weights", "size", "frames", "backend"]
CHANGES += ["argument", "arguments"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_compiled_changes_the_key(change, network):
    before = key(partial(backend, precision="fp16"), network, IMAGES, device=CPU)
    assert before == key(partial(backend, precision="fp16"), network, IMAGES[:1] + 1, device=CPU)
    assert len(before) == 64
    function, network, images = changed(network, change)
    assert key(function, network, images, device=CPU) != before


@pytest.mark.parametrize(
    "change", ["gpu", "architecture", "driver", "cpu", "python", "package", "new package", "sources"]
)
def test_where_it_is_compiled_changes_the_key(change, network, monkeypatch):
    facts = {"gpu": "NVIDIA H100", "architecture": "9.0", "driver": "580.82.07"}
    installed = {"onnxruntime": "1.32.0"}

    def stage():
        monkeypatch.setattr(cache_key, "gpu_facts", lambda device: facts)
        found = [SimpleNamespace(metadata={"Name": name, "Version": installed[name]}) for name in installed]
        monkeypatch.setattr("p2p.deploy.cache_key.metadata.distributions", lambda: found)
        return key(backend, network, IMAGES, device=CPU)

    before = stage()
    assert before == stage()
    if change in facts:
        facts[change] += "1"
    elif change == "cpu":
        monkeypatch.setattr(cache_key, "instructions", lambda: "avx2")
    elif change == "python":
        monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    elif change == "package":
        installed["onnxruntime"] = "1.32.1"
    elif change == "new package":
        installed["tensorrt"] = "10.13"
    else:
        monkeypatch.setattr(cache_key, "sources", lambda folder: "other")
    assert stage() != before


def test_sources_follow_names_and_contents(tmp_path):
    (tmp_path / "rewrite").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "rewrite/b.py").write_text("2")
    seen = {sources(tmp_path)}
    (tmp_path / "notes.txt").write_text("no source")
    assert sources(tmp_path) in seen
    (tmp_path / "rewrite/b.py").write_text("3")
    seen.add(sources(tmp_path))
    (tmp_path / "rewrite/b.py").rename(tmp_path / "b.py")
    seen.add(sources(tmp_path))
    assert len(seen) == 3


def run(function, network, tmp_path, name, cache_dir="cache"):
    folder = tmp_path / name
    folder.mkdir()
    place = tmp_path / cache_dir if cache_dir else None
    return folder, build(function, network, IMAGES, folder, device=CPU, cache_dir=place)


def test_the_second_build_is_a_copy_and_says_so(network, tmp_path, caplog):
    caplog.set_level("INFO")
    function = Counting()
    _, made = run(function, network, tmp_path, "one")
    assert "build cache" not in caplog.text
    folder, again = run(function, network, tmp_path, "two")
    assert function.calls == 1
    assert again == made
    assert sorted(path.name for path in folder.iterdir()) == ["generator.bin", "kernels"]
    assert (folder / "generator.bin").read_bytes() == b"program"
    assert "taken from the build cache: built" in caplog.text
    with torch.no_grad():
        network[0].bias += 1
    run(function, network, tmp_path, "three")
    assert function.calls == 2
    run(function, network, tmp_path, "four", cache_dir=None)
    assert function.calls == 3


@pytest.mark.parametrize("damage", ["truncated", "missing", "record", "unknown field"])
def test_a_damaged_entry_is_dropped_and_built_again(damage, network, tmp_path, caplog):
    function = Counting()
    run(function, network, tmp_path, "one")
    (entry,) = (tmp_path / "cache").iterdir()
    if damage == "truncated":
        (entry / "kernels").write_bytes(b"mor")
    elif damage == "missing":
        (entry / "generator.bin").unlink()
    elif damage == "record":
        (entry / "entry.json").write_text("{")
    else:
        record = json.loads((entry / "entry.json").read_text())
        record["program"]["colour"] = "red"
        (entry / "entry.json").write_text(json.dumps(record))
    folder, _ = run(function, network, tmp_path, "two")
    assert function.calls == 2
    assert (folder / "kernels").read_bytes() == b"more"
    assert len([record for record in caplog.records if "is damaged" in record.getMessage()]) == 1
    run(function, network, tmp_path, "three")
    assert function.calls == 2


def test_two_exports_that_store_the_same_are_no_trouble(network, tmp_path, monkeypatch, caplog):
    """The other one is done between the copy and the rename."""
    dumps = json.dumps

    def other_is_faster(record, **options):
        if "files" in record:
            (entry,) = [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".p2p-")]
            (tmp_path / "cache" / name).mkdir()
            (tmp_path / "cache" / name / "entry.json").touch()
            assert (entry / "kernels").is_file()
        return dumps(record, **options)

    function = Counting()
    name = key(function, network, IMAGES, device=CPU)
    monkeypatch.setattr(cache.json, "dumps", other_is_faster)
    run(function, network, tmp_path, "one")
    assert "cannot be used" not in caplog.text
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [name]


def test_the_entries_used_last_are_kept(network, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MOST_ENTRIES", 3)
    place = tmp_path / "cache"
    old = [str(index) * 64 for index in range(4)]
    for index, name in enumerate(old):
        (place / name).mkdir(parents=True)
        (place / name / "entry.json").touch()
        os.utime(place / name, (index, index))
    users = {"thesis", "a" * 64}  # of other programs, and of the user's own
    for name in users:
        (place / name).mkdir()
        os.utime(place / name, (0, 0))
    function = Counting()
    run(function, network, tmp_path, "one")
    kept = {path.name for path in place.iterdir()}
    (new,) = kept - users - set(old)
    assert kept == {old[2], old[3], new} | users
    os.utime(place / new, (1, 1))
    run(function, network, tmp_path, "two")  # a hit makes it the youngest
    with torch.no_grad():
        network[0].bias += 1
    run(function, network, tmp_path, "three")
    assert function.calls == 2
    assert {new, old[3]} < {path.name for path in place.iterdir()}


def test_a_cache_that_cannot_be_written_costs_a_warning(network, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    folder, made = run(Counting(), network, tmp_path, "one")
    assert made.program.file == "generator.bin" and (folder / "generator.bin").is_file()
    assert "cannot be used (Not a directory): set cache_dir" in caplog.text


def test_durations_read_well():
    seconds = [0.4, 31, 119, 180, 7300, 5 * 86400]
    assert [duration(value) for value in seconds] == ["0 s", "31 s", "119 s", "3 minutes", "2 hours", "5 days"]
