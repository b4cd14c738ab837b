"""Outputs in tar and Parquet files: the bytes of the loose files, whole shards, and what is done again."""

import tarfile

import pytest

import p2p
from p2p.data.pairs import Pair, Source
from p2p.pipelines import packer
from p2p.pipelines.outcome import Outcome
from tests.pipelines.conftest import files


@pytest.fixture
def infer(export_folder, inputs, tmp_path):
    def run(*overrides, output):
        given = {"export": export_folder, "run_dir": tmp_path / "run", "input": inputs, "output": tmp_path / output}
        return p2p.infer([*overrides, "batch_size=2", *(f"{key}={value}" for key, value in given.items())])

    return run


def members(path):
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}


def loose(tmp_path):
    return {name: data for name, data in files(tmp_path / "loose").items() if name.endswith(".png")}


@pytest.mark.slow
def test_tar_files_hold_the_outputs(infer, inputs, tmp_path):
    infer("gallery=0", "pipeline=sequential", output="loose")
    (inputs / "bad.png").write_bytes(b"broken")
    shards = ["pipeline=overlap", "output_format=tar", "shard_size=5"]
    with pytest.raises(ValueError, match="1 of 12 images failed"):
        infer(*shards, output="packed")
    found = {path.name: members(path) for path in sorted((tmp_path / "packed").glob("*.tar"))}
    assert [len(shard) for shard in found.values()] == [5, 4, 2]
    assert {name: data for shard in found.values() for name, data in shard.items()} == loose(tmp_path)
    assert set(files(tmp_path / "packed")) == {*found, "failures.csv", ".p2p.json"}
    assert not [path for path in (tmp_path / "run").iterdir() if "partial" in path.name]
    (inputs / "bad.png").unlink()
    done = infer(*shards, "skip_existing=true", output="packed")  # other images: all shards are others
    assert (done.written, done.skipped) == (11, 0)
    whole = files(tmp_path / "packed")
    (tmp_path / "packed/shard-000001.tar").unlink()
    done = infer(*shards, "skip_existing=true", output="packed")
    assert (done.written, done.skipped) == (5, 6)
    assert files(tmp_path / "packed") == whole


def test_a_run_that_stops_leaves_whole_shards(infer, tmp_path, monkeypatch):
    infer("gallery=0", "pipeline=sequential", output="loose")
    write, written = packer.write, []

    def stopping(contents, shard):
        if written:
            raise OSError(28, "No space left on device", str(shard))
        written.append(shard)
        write(contents, shard)

    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"shard-000001.tar cannot be written"):
        patch.setattr(packer, "write", stopping)
        infer("pipeline=sequential", "output_format=tar", "shard_size=4", output="packed")
    assert [path.name for path in (tmp_path / "packed").glob("*.tar")] == ["shard-000000.tar"]
    done = infer("pipeline=sequential", "output_format=tar", "shard_size=4", "skip_existing=true", output="packed")
    assert (done.written, done.skipped) == (7, 4)
    packed = {name: data for path in (tmp_path / "packed").glob("*.tar") for name, data in members(path).items()}
    assert packed == loose(tmp_path)


@pytest.mark.parametrize(
    ("settings", "why"),
    [(["output_format=zip"], "use files, tar or parquet"), (["shard_size=7"], "would be ignored"),
     (["output_format=tar", "shard_size=0"], "shard_size=0")],
)  # fmt: skip
def test_settings(infer, tmp_path, settings, why):
    with pytest.raises(ValueError, match=why):
        infer(*settings, output="out")
    assert not (tmp_path / "out").exists()


def test_files_are_looked_for_once_and_those_of_other_machines_are_missed(tmp_path):
    pairs = [Pair(f"{number:02d}", Source(tmp_path)) for number in range(40)]
    shards = dict(
        zip([pair.name for pair in pairs], packer.shards_of(pairs, tmp_path, format="tar", size=8), strict=True)
    )
    outcome, asked = Outcome(), []

    def path(name):
        asked.append(name)
        return tmp_path / f"{name}.png"

    with pytest.raises(ValueError, match=r"shard-000004.tar cannot be written, .* has no \S+39.png: with pipeline=ray"):  # noqa: SIM117
        with packer.packing(pairs, shards, path, outcome):
            for pair in pairs[:-1]:
                (tmp_path / f"{pair.name}.png").write_bytes(b"")
                outcome.on_image()
            outcome.on_image()
    assert len([*tmp_path.glob("*.tar")]) == 4
    assert len(asked) < 4 * len(pairs)
