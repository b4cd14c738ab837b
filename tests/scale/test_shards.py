"""Parquet files in and out, and shards of a store."""

import pytest

from p2p.data.pairs import find_inputs
from tests.conftest import picture
from tests.pipelines.conftest import files

pytestmark = pytest.mark.scale


@pytest.fixture
def shard(photos, tmp_path, monkeypatch):
    """A Parquet file with the 24 whole images of `photos`, in the columns of Hugging Face's data sets."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (photos / "bad.png").unlink()
    found = sorted(files(photos).items())
    columns = {"image": [{"bytes": data, "path": None} for _, data in found], "name": [name for name, _ in found]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=7)
    return tmp_path / "a.parquet"


def test_from_parquet_to_parquet(infer, photos, shard, tmp_path):
    from pyarrow import parquet

    infer("pipeline=sequential", input=photos, output=tmp_path / "loose")
    loose = {name: data for name, data in files(tmp_path / "loose").items() if name != ".p2p.json"}
    options = {"input": shard, "output": tmp_path / "packed", "output_format": "parquet", "shard_size": 10}
    done = infer("pipeline=sequential", **options)
    assert done.written == 24
    found = [parquet.read_table(path).to_pylist() for path in sorted((tmp_path / "packed").glob("*.parquet"))]
    assert [len(rows) for rows in found] == [10, 10, 4]
    assert {row["name"].removeprefix("a/"): row["image"] for rows in found for row in rows} == loose
    again = infer("pipeline=sequential", skip_existing=True, **options)
    assert (again.written, again.skipped) == (0, 24)
    infer(
        "pipeline=sequential", input=f"{tmp_path}/packed/*.parquet", output=tmp_path / "twice"
    )  # what was written is read
    assert len([name for name in files(tmp_path / "twice") if name.endswith(".png")]) == 24


def test_shards_of_a_store(infer, shard, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe_file("/in/a.parquet", shard.read_bytes())
    options = {"output": "memory://packed", "output_format": "tar", "shard_size": 10}
    infer("pipeline=sequential", input="memory://in/*.parquet", **options)
    assert [path for path in store.find("/packed") if path.endswith(".tar")] == [
        f"/packed/shard-{number:06d}.tar" for number in range(3)
    ]
    infer("pipeline=sequential", input='"memory://packed/shard-{000000..000002}.tar"', output=tmp_path / "twice")
    assert len([name for name in files(tmp_path / "twice") if name.endswith(".png")]) == 24


def test_what_is_no_parquet_file_is_one_sentence(infer, tmp_path):
    pytest.importorskip("pyarrow")
    picture(8, 8).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet is no Parquet file, or is damaged"):
        infer(input=tmp_path / "a.parquet", output=tmp_path / "out")


def test_rows_without_an_image_and_other_columns(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def found(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
        return [(pair.name, pair.input.member.size) for pair in find_inputs(f"{tmp_path}/x.parquet")]

    assert found(name=["a", "b"], image=[b"12", None]) == [("x/a", 2), ("x/b", 0)]
    with pytest.raises(ValueError, match=r"x.parquet has two images of the name a: give each one of its own"):
        found(name=["a", "a"], image=[b"12", b"3"])
    with pytest.raises(ValueError, match=r"x.parquet has no bytes of images in its column image: it holds 'a'"):
        found(image=["a"])
    with pytest.raises(ValueError, match=r"has no bytes of images in its column image: it holds {'path': 'a'}"):
        found(image=[{"path": "a"}])
    assert found(name=[None, None], image=[b"12", b"3"]) == [("x/00000000", 2), ("x/00000001", 1)]
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[4:30] = bytes(26)  # a page's header, which pyarrow says by an OSError
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"x.parquet cannot be read, or is damaged"):
        find_inputs(f"{tmp_path}/x.parquet")
    with pytest.raises(ValueError, match=r"none.parquet cannot be read \(No such file"):
        find_inputs(f"{tmp_path}/none.parquet")


def test_a_shard_is_not_replaced_by_its_own_outputs(infer, shard, tmp_path):
    shard = shard.rename(tmp_path / "shard-000000.parquet")
    with pytest.raises(ValueError, match=r"shard-000000.parquet is an input, and output=\S+ would replace it"):
        infer("pipeline=sequential", input=shard, output=tmp_path, output_format="parquet", shard_size=10)
