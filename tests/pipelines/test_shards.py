import fcntl
import os
import tarfile

import pytest

from p2p.codecs.pillow import Pillow
from p2p.data import parquet
from p2p.data.pairs import find_inputs
from p2p.data.tar import add
from p2p.pipelines import overlap, sequential
from tests.pipelines.conftest import Negative, files, stages_for


def pack(path, contents):
    with tarfile.open(path, "w") as archive:
        for name, data in contents.items():
            add(archive, name, data)


@pytest.fixture
def shards(inputs, tmp_path):
    """The 11 images of `inputs`, and what is no image, in two tar files."""
    found = sorted(files(inputs).items())
    (tmp_path / "shards").mkdir()
    pack(tmp_path / "shards/a-00.tar", dict(found[:6]) | {"00.json": b"{}"})
    pack(tmp_path / "shards/a-01.tar", dict(found[6:]))
    return tmp_path / "shards"


@pytest.mark.parametrize("source", ["a-{00..01}.tar", "*.tar"])
@pytest.mark.parametrize("run", [sequential.run, overlap.run])
def test_images_in_tar_files_are_translated_as_files_are(inputs, shards, tmp_path, run, source):
    skipped = {}
    pairs = find_inputs(f"{shards}/{source}", skipped=skipped)
    assert skipped == {"of other formats": ["00.json"]}
    run(pairs, stages_for(Negative(), tmp_path / "packed", image_size=16), batch_size=4)
    sequential.run(find_inputs(str(inputs)), stages_for(Negative(), tmp_path / "loose", image_size=16), batch_size=4)
    packed = {name.partition("/")[2]: data for name, data in files(tmp_path / "packed").items()}
    assert packed == files(tmp_path / "loose")
    assert len(files(tmp_path / "packed")) == 11
    assert {name.partition("/")[0] for name in files(tmp_path / "packed")} == {"a-00", "a-01"}


def test_a_broken_image_is_named_with_its_shard(tmp_path):
    pack(tmp_path / "x.tar", {"deep/bad.png": b"broken"})
    stages = stages_for(Negative(), tmp_path / "out", image_size=16, codec=Pillow())
    sequential.run(find_inputs(f"{tmp_path}/x.tar"), stages, batch_size=1)
    assert stages.failures == {"x/deep/bad": f"cannot read {tmp_path}/x.tar (x/deep/bad.png): it is not an image"}


def test_sizes_are_known_without_a_look_at_the_pixels(shards, tmp_path):
    class Counting(Pillow):
        decoded = 0

        def decode(self, data, *, channels=3):
            self.decoded += 1
            return super().decode(data, channels=channels)

    codec = Counting()
    stages = stages_for(Negative(), tmp_path / "out", image_size=16, codec=codec, size="tile")
    sequential.run(find_inputs(f"{shards}/*.tar"), stages, batch_size=4)
    assert len(files(tmp_path / "out")) == codec.decoded == 11


def test_names_that_differ_in_suffix_alone(inputs, tmp_path):
    data = next(iter(files(inputs).values()))
    pack(tmp_path / "x.tar", {"a.png": data, "a.jpg": data, "b.png": data})
    assert [pair.name for pair in find_inputs(f"{tmp_path}/x.tar")] == ["x/a.png", "x/a.jpg", "x/b"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"no tar file" * 100, "is no tar file, or is damaged"), (None, "No such file"), ({}, "there is no image in")],
)
def test_what_is_no_shard_is_one_sentence(tmp_path, content, why):
    if isinstance(content, dict):
        pack(tmp_path / "x.tar", content)
    elif content is not None:
        (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        find_inputs(f"{tmp_path}/x.tar")


def test_a_pattern_of_no_shard(tmp_path):
    with pytest.raises(ValueError, match="matches no file"):
        find_inputs(f"{tmp_path}/*.tar")


def test_a_pattern_of_too_many(tmp_path):
    with pytest.raises(ValueError, match=r"x-{0..999999999}.tar stands for 1,000,000,000 shards: use 100,000 or fewer"):
        find_inputs(f"{tmp_path}/x-{{0..999999999}}.tar")


def test_copies_that_were_used_last_are_kept_unless_another_process_reads_any(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(parquet, "KEPT_BYTES", 250)
    monkeypatch.setattr(parquet, "_lock", None)
    monkeypatch.setattr(parquet, "_rows", lambda shard: [("a.png", b"")])
    folder = tmp_path / "p2p/shards"
    folder.mkdir(parents=True)
    for index in range(5):
        (folder / f"{index}.tar").write_bytes(bytes(100))
        (folder / f"{index}.used").touch()
        os.utime(folder / f"{index}.used", (index, index))
    (folder / ".p2p-dead.partial").touch()
    shard = tmp_path / "x.parquet"
    shard.touch()
    held = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_SH)  # as another process
    [path] = parquet.unpacked([shard])
    assert len([*folder.glob("*.tar")]) == 6
    os.close(held)
    made = path.stat().st_ctime_ns
    assert parquet.unpacked([shard]) == [path]  # which is not counted
    assert {each.name for each in folder.glob("*.tar")} == {"3.tar", "4.tar", path.name}
    assert {each.name for each in folder.glob("*.used")} == {"3.used", "4.used", f"{path.stem}.used"}
    assert not [*folder.glob("*.partial")]
    assert path.stat().st_ctime_ns == made  # or skip_existing=true would take its images for changed
    os.close(parquet._lock)


def test_no_name_leads_out_of_the_outputs(inputs, tmp_path):
    data = next(iter(files(inputs).values()))
    pack(tmp_path / "x.tar", {"../../out.png": data, "a/../../out.png": data, "/b.png": data, "./c.png": data})
    skipped = {}
    assert [pair.name for pair in find_inputs(f"{tmp_path}/x.tar", skipped=skipped)] == ["x/b", "x/c"]
    assert skipped == {"hidden": ["out.png", "out.png"]}


def test_two_shards_of_one_name(inputs, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        pack(tmp_path / folder / "x.tar", {"c.png": next(iter(files(inputs).values()))})
    with pytest.raises(ValueError, match=r"a/x.tar and \S+b/x.tar would have the same names"):
        find_inputs(f"{tmp_path}/*/x.tar")


@pytest.mark.parametrize("damage", ["a header", "cut in a header", "cut between files", "cut in a file"])
def test_a_damaged_tar_file_loses_no_image_in_silence(tmp_path, damage):
    """tarfile itself ends before the second of three files, as if there were no more."""
    path = tmp_path / "x.tar"
    pack(path, {f"{name}.png": bytes(512) for name in "abc"})  # a header and a block each
    data = bytearray(path.read_bytes())
    if damage == "a header":
        data[1024:1124] = b"\xff" * 100
    else:
        del data[{"cut in a header": 1124, "cut between files": 2048, "cut in a file": 1700}[damage] :]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x.tar is no tar file, or is damaged"):
        find_inputs(str(path))


def test_a_tar_file_in_gzip_is_one_sentence(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        add(archive, "a.png", b"data")
    with pytest.raises(ValueError, match="without gzip"):
        find_inputs(f"{tmp_path}/x.tar.gz")
