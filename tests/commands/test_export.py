"""What `export.py` decides before it exports."""

import pytest

import p2p
from p2p.commands.export_sizes import dynamic_sizes
from p2p.deploy.backends import torch_tensorrt


@pytest.mark.parametrize(
    ("backend", "reason", "largest"),
    [
        ("backend=auto", None, 2048),
        ("backend=auto", "there is no CUDA GPU", 8192),
        ("backend=fastest", None, 2048),
        ("backend=fastest backend.backends=[eager]", None, 8192),
        ("backend=torch_tensorrt", "there is no CUDA GPU", 2048),
        ("backend=exported_program", None, 8192),
    ],
)
def test_the_largest_size_goes_by_what_may_build_the_program(monkeypatch, backend, reason, largest):
    monkeypatch.setattr(torch_tensorrt, "unavailable", lambda: reason)
    cfg = p2p.compose(["size=dynamic", *backend.split()], command="export")
    assert dynamic_sizes(cfg, stride=32, trained=[64, 64]).max == [largest, largest]
