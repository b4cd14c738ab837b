"""Images of a real S3 server, moto's, and back to it."""

import os
import signal
import threading
import time

import pytest

from p2p.data.pairs import find_inputs
from tests.conftest import picture
from tests.scale.conftest import files, ray_processes

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def s3():
    """A server with the bucket `photos`; what s3fs and boto ask is in the environment, also of processes that start."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = s3fs.S3FileSystem(use_listings_cache=False)
        store.mkdir("photos")
        store.mkdir("outputs")
        yield store
    server.stop()


def upload(store, folder, where):
    """What is put there in the same second as an output counts as changed since: stores tell whole seconds."""
    for name, data in files(folder).items():
        store.pipe_file(f"{where}/{name}", data)
    time.sleep(1.0)


def objects(store, where):
    names = [path.removeprefix(f"{where}/") for path in store.find(where)]  # some of which come and go
    return {name: store.cat_file(f"{where}/{name}") for name in names if name not in (".p2p.json", "failures.csv")}


@pytest.mark.parametrize("pipeline", ["sequential", "overlap"])
def test_the_objects_are_the_files_of_a_local_run(infer, photos, s3, tmp_path, pipeline):
    upload(s3, photos, f"photos/{pipeline}")
    where = {"input": f"s3://photos/{pipeline}", "output": f"s3://outputs/{pipeline}"}
    with pytest.raises(ValueError, match=r"1 of 25 images failed: cannot read .*bad.png: it is not an image"):
        infer(f"pipeline={pipeline}", **where)
    (photos / "bad.png").unlink()
    infer("pipeline=sequential", input=photos, output=tmp_path / "local")
    local = {name: data for name, data in files(tmp_path / "local").items() if name != ".p2p.json"}
    assert objects(s3, f"outputs/{pipeline}") == local
    assert s3.cat_file(f"outputs/{pipeline}/failures.csv").startswith(b"path,stage,reason\ns3://photos/")
    s3.rm_file(f"photos/{pipeline}/bad.png")
    s3.rm_file(f"outputs/{pipeline}/01.png")
    done = infer(f"pipeline={pipeline}", skip_existing=True, **where)
    assert (done.written, done.skipped) == (1, 23)
    assert objects(s3, f"outputs/{pipeline}") == local
    done = infer(f"pipeline={pipeline}", "codec.format=jpg", input=f"s3://photos/{pipeline}/deep/**/*.png",
                 output=f"s3://outputs/{pipeline}-jpg")  # fmt: skip
    assert done.written == len([name for name in files(photos / "deep") if name.endswith(".png")])


def test_ray_with_a_killed_engine_leaves_every_object_whole(infer, s3, tmp_path):
    total, killed = 120, []
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(total):
        picture(160, 120, seed=index).save(folder / f"{index:03d}.jpg")
    upload(s3, folder, "photos/many")
    infer("pipeline=sequential", input=folder, output=tmp_path / "local")
    local = {name: data for name, data in files(tmp_path / "local").items() if name != ".p2p.json"}
    seen = []

    def kill():
        while not (there := objects(s3, "outputs/many")):
            time.sleep(0.05)
        seen.append(there)
        pid = ray_processes("Translate")[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    where = {"input": "s3://photos/many", "output": "s3://outputs/many"}
    done = infer("pipeline=ray", **where)
    thread.join(60)
    assert killed and len(seen[0]) < total
    assert done.written == total
    assert objects(s3, "outputs/many") == local
    assert all(local[name] == data for name, data in seen[0].items())  # none was ever seen in part
    for name in list(local)[:7]:
        s3.rm_file(f"outputs/many/{name}")
    done = infer("pipeline=ray", skip_existing=True, **where)
    assert (done.written, done.skipped) == (7, total - 7)
    assert objects(s3, "outputs/many") == local


def test_what_a_store_refuses_is_one_sentence(infer, photos, s3, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"input=s3://nowhere/x cannot be read|there is no image at input=s3://nowhere/x"
    ):
        infer(input="s3://nowhere/x", output=tmp_path / "out")
    with pytest.raises(ValueError, match=r"^output=s3://nowhere/out cannot be written \(there is no such object"):
        infer(input=photos, output="s3://nowhere/out")
    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match=r"refused/\S+: Could not connect to the endpoint"),
    ):
        upload(s3, photos, "photos/refused")
        found = find_inputs("s3://photos/refused")
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.setattr("p2p.commands.infer_plan.inputs_to_translate", lambda *_, **__: found)
        infer("pipeline=overlap", input="s3://photos/refused", output=tmp_path / "out")
    with pytest.raises(ValueError, match=r"gs://bucket/x needs a package that is not installed .*: pip install gcsfs"):
        monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
        infer(input="gs://bucket/x", output=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.png"))
