import json

import pytest
import torch
from torch import nn

from benchmarks import generator
from benchmarks.candidate import Candidate
from p2p.data.pairs import find_pairs
from p2p.models.unet import UNet

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch):
    programs = [("module", "fp32", "none", {}), ("module", "fp32", "fold+last", {}), ("no_such", "fp32", "none", {})]
    monkeypatch.setattr(generator, "PROGRAMS", programs)
    monkeypatch.setattr(generator, "find_pairs", lambda folder: find_pairs(folder)[:4])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(*options: str) -> dict:
        path = tmp_path / "generator.json"
        quick = ["--image-size", "32", "--rounds", "2", "--round-s", "0.01", "--commit", "abc", "--output", str(path)]
        monkeypatch.setattr("sys.argv", ["generator", *quick, *options])
        generator.main()
        return json.loads(path.read_text())

    return run


def test_each_program_is_a_row_for_each_batch_size(run, capsys):
    record = run("--batch", "1,3")
    assert (record["commit"], record["images"]) == ("abc", 4)
    assert [row["batch"] for row in record["rows"]] == [1, 1, 1, 3, 3, 3]
    for limit, (plain, rewritten, failed) in zip(
        record["limits"], (record["rows"][:3], record["rows"][3:]), strict=True
    ):
        for row in (plain, rewritten):
            assert row["psnr_worst_db"] > 100  # 4 images in batches of 3: the last is filled up
            assert 0 < row["latency_median_ms"] <= row["latency_p99_ms"]
            assert row["of_limit"] == pytest.approx(row["images_per_s"] / limit["images_per_s"], abs=1e-4, rel=0.1)
        assert failed["reason"] == "ModuleNotFoundError: No module named 'p2p.deploy.backends.no_such'"
    printed = capsys.readouterr().out
    assert "module fp32 fold+last " in printed
    assert "no_such fp32 none " in printed


def test_what_does_not_fit_the_budget_is_named(run):
    record = run("--batch", "1", "--budget-s", "0")
    assert {row["reason"] for row in record["rows"]} == {"not built: --budget-s=0 was used up"}


def test_the_network_is_like_a_trained_one():
    torch.manual_seed(1)
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    network = generator.trained_like(images, "running")
    assert isinstance(network, UNet)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.running_mean.abs().max() > 0.01 and norm.weight.std() > 0.1 for norm in norms)
    with torch.no_grad():
        output = network(images)
        again = generator.trained_like(images, "running")(images)
    assert 0.1 < output.std() < 0.9  # neither flat nor saturated, so that PSNR says something
    assert torch.equal(output, again)


def test_images_per_s_come_from_the_calls_that_did_not_wait():
    candidate = Candidate("module", "fp32", "none", {}, build_s=1.0, psnr=torch.tensor([40.0, 50.0]))
    candidate.latency_s = [0.001] * 98 + [0.003, 0.009]
    candidate.burst_s = [0.0005, 0.0005, 0.1]
    row = candidate.row(8, limit=32_000)
    assert (row["images_per_s"], row["of_limit"], row["latency_median_ms"]) == (16_000, 0.5, 1.0)
    assert row["latency_p99_ms"] == 3.0
    assert (row["psnr_mean_db"], row["psnr_worst_db"]) == (45, 40)
