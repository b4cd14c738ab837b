"""Outputs in tar and Parquet files: the bytes of the loose files, whole shards, and what is done again."""

import tarfile

import pytest

import p2p
from p2p.pipelines import packer
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
