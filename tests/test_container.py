"""Dockerfile, .dockerignore and compose.yaml fit what they are about. None of them is built here."""

from fnmatch import fnmatch

import pytest
import yaml
from omegaconf import OmegaConf

from tests.conftest import ROOT

tomllib = pytest.importorskip("tomllib")  # Python 3.11

IMAGE = (ROOT / "Dockerfile").read_text()
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_health_check_and_the_ports_are_those_of_the_server():
    port = OmegaConf.load(ROOT / "conf" / "serve.yaml").port
    assert f"http://127.0.0.1:{port}/healthz" in IMAGE and f"EXPOSE {port}\n" in IMAGE
    assert '@app.get("/healthz")' in (ROOT / "p2p" / "serve" / "app.py").read_text()
    for service in SERVICES.values():
        assert [each.rpartition(":")[2] for each in service["ports"]] == [str(port)]


def test_the_image_gets_every_file_that_the_package_is_built_from():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    taken = [line[1:] for line in lines if line.startswith("!")]
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    project = PROJECT["project"]
    for needed in (*wheel, *project["license-files"], project["readme"], "pyproject.toml", "constraints.txt"):
        assert any(needed == each or needed.startswith(f"{each}/") for each in taken), needed
    assert lines[1] == "*" and not any(fnmatch(secret, each) for each in taken for secret in (".git", ".venv", "runs"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_changes_no_file_and_is_open_to_this_machine_alone(name):
    service = SERVICES[name]
    assert service["read_only"] and all(each.endswith(":ro") for each in service["volumes"])
    assert all(each.startswith("127.0.0.1:") for each in service["ports"])
    assert "\nUSER 10001\n" in IMAGE


def test_the_extra_of_the_image_is_there():
    assert "ARG EXTRAS=serve\n" in IMAGE and "serve" in PROJECT["project"]["optional-dependencies"]
