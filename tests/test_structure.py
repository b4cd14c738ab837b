"""Imports point one way: a package imports those that stand in a later line, and none of its own line or before."""

import ast
from pathlib import Path

from tests.conftest import ROOT

LAYERS = [
    {"__main__", "api"},
    {"commands"},
    {"training"},
    {"pipelines", "report"},
    {"deploy"},
    {"interop"},
    {"data", "models", "losses", "metrics"},
    {"codecs", "config", "profiling"},
    {"batch", "run"},
    {"levels", "shipped", "system"},
]


def imports(path: Path) -> set[str]:
    """The packages of p2p that a file imports, anywhere in it, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "p2p":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("p2p."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("p2p.")}
    return found


def test_imports_point_one_way():
    level = {name: index for index, names in enumerate(LAYERS) for name in names}
    files = {path: path.relative_to(ROOT / "p2p").parts[0].removesuffix(".py") for path in (ROOT / "p2p").rglob("*.py")}
    wrong = [
        f"{path.relative_to(ROOT)} imports p2p.{name}"
        for path, package in sorted(files.items())
        for name in imports(path) - {package}
        if package != "__init__" and level[name] <= level[package]
    ]
    assert not wrong
