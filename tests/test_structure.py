"""Imports point one way, between packages and between files."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from tests.conftest import ROOT

# A package imports those that stand in a later line, and none of its own line or before.
LAYERS = [
    {"__main__", "api"},
    {"commands"},
    {"training", "serve"},
    {"pipelines", "report"},
    {"deploy"},
    {"interop"},
    {"data", "models", "losses", "metrics"},
    {"codecs", "config", "profiling"},
    {"batch", "run"},
    {"image_size", "levels", "shipped", "system"},
]


FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "p2p").rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """The files of p2p that a file imports, by their dotted names, anywhere in it, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & FILES.keys()


def test_imports_of_packages_point_one_way():
    level = {name: index for index, names in enumerate(LAYERS) for name in names}
    wrong = [
        f"{name} imports {other}"
        for name, path in FILES.items()
        for other in imports(path) - {"p2p"}
        if name != "p2p" and (package(other) != package(name)) and level[package(other)] <= level[package(name)]
    ]
    assert not wrong


def package(name: str) -> str:
    return name.split(".")[1]


def test_files_do_not_import_each_other_in_a_circle():
    TopologicalSorter({name: imports(path) - {name} for name, path in FILES.items()}).prepare()
