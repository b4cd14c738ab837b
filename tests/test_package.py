"""What makes p2p a package: its front door, what it ships, and what it says that it needs."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest
from omegaconf import OmegaConf

import p2p
from p2p import shipped
from p2p.__main__ import COMMANDS, main
from p2p.run.trust import check_record
from tests.conftest import ROOT

# The distributions of modules that are not installed here; triton is the one that torch pins, yaml is omegaconf's.
IMPORTED_AS = {"cvcuda": "cvcuda-cu13", "torch_tensorrt": "torch-tensorrt"}
IMPORTED_AS |= {"onnxruntime": "onnxruntime", "resvg_py": "resvg-py", "yaml": "omegaconf", "triton": "torch"}
IMPORTED_AS |= {"prometheus_client": "prometheus-client", "upath": "universal-pathlib"}


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_usage_names_every_command_in_a_few_lines(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["p2p", *arguments])
    main()
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name}  ", out, re.MULTILINE) for name in COMMANDS)
    assert out.count("\n") < 12


def test_the_version_is_the_packages(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["p2p", "--version"])
    main()
    assert capsys.readouterr().out == f"p2p {p2p.__version__}\n"
    assert f"## {p2p.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(("command", "hint"), [("trian", ", did you mean train;"), ("translate-all", "p2p;")])
def test_an_unknown_command_gets_one_sentence(command, hint, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["p2p", command])
    with pytest.raises(SystemExit, match=f"error: {command} is not a command of p2p.*; known are train, ") as stopped:
        main()
    assert hint in stopped.value.code


def test_a_command_gets_the_arguments_behind_its_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["p2p", "infer", "batch_size=5", "--cfg", "job"])
    main()
    assert "batch_size: 5\n" in capsys.readouterr().out
    for name in ("pair", "to-reference", "to-safetensors"):
        monkeypatch.setattr(sys, "argv", ["p2p", name, "--help"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        assert f"usage: p2p {name} " in capsys.readouterr().out


def test_a_clone_uses_its_own_conf_and_samples(tmp_path, monkeypatch):
    assert (shipped.CONF, shipped.SAMPLES) == (ROOT / "conf", ROOT / "data/samples")
    assert shipped.samples() == "data/samples"
    monkeypatch.chdir(tmp_path)
    assert shipped.samples() == str(ROOT / "data/samples")


def test_a_record_may_name_the_samples_wherever_they_are():
    record = {"generator": {}, "data": {"root": "${samples:}"}}
    check_record(OmegaConf.create(record), "train.yaml")
    with pytest.raises(ValueError, match="which refers to something outside the record"):
        check_record(OmegaConf.create(record | {"seed": "${samples:}${oc.env:HOME}"}), "train.yaml")


def test_what_is_imported_is_declared():
    """Each package that p2p imports by name is a dependency or in an extra, and each dependency is imported."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    stated = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}
    optional = {re.match(r"[\w-]+", each)[0] for name in extras if name != "dev" for each in extras[name]}
    found = packages_distributions()
    imported = set()
    for path in [*(ROOT / "p2p").rglob("*.py"), *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    imported -= {*sys.stdlib_module_names, "p2p"}
    named = {name: IMPORTED_AS.get(name) or found.get(name, [name])[0] for name in imported}
    assert not {name: dist for name, dist in named.items() if dist not in stated | optional}
    assert not stated - set(named.values()) - {"tensorboard", "torchvision"}  # which Lightning and LPIPS import
