"""What pipeline=ray says before Ray starts, and before anything is written. Ray itself is in tests/scale."""

import pytest

import p2p
from p2p.pipelines import ray
from tests.conftest import picture


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["pipeline.actors=4", "device=cpu"], "pipeline.actors=4 leaves none of Ray's 4 CPUs to load and save"),
        (["pipeline.actors=99"], "pipeline.actors=99 leaves none of Ray's 4 CPUs"),
        (["device=cuda"], "device=cuda needs a GPU, and Ray has none"),
        (["device=cuda:1"], "device=cuda:1 is one GPU, and with pipeline=ray Ray chooses"),
        (["pipeline.ray_address=127.0.0.1:1"], "pipeline.ray_address=127.0.0.1:1 is no cluster"),
        (["pipeline.ray_address=here"], r"pipeline.ray_address=here is no cluster \(it has no port\)"),
        (["size=tile"], "pipeline=ray needs size=model"),
    ],
)
def test_what_cannot_be_is_said_first(export_folder, tmp_path, monkeypatch, settings, why):
    monkeypatch.setattr(ray, "find_spec", lambda name: True)
    monkeypatch.setattr(ray, "available_cores", lambda: 4)
    monkeypatch.setattr(ray, "gpu_addresses", list)
    monkeypatch.setattr(ray, "started", pytest.fail)
    picture(32, 32).save(tmp_path / "a.png")
    given = [f"export={export_folder}", f"input={tmp_path}/a.png", f"output={tmp_path}/out", f"run_dir={tmp_path}/run"]
    with pytest.raises(ValueError, match=why):
        p2p.infer(["pipeline=ray", *given, *settings])
    assert not (tmp_path / "out").exists()


def test_a_cluster_elsewhere_may_have_more(monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda name: True)
    monkeypatch.setattr(ray, "check_address", lambda address: None)
    ray.check("cuda", actors=99, ray_address="auto")
