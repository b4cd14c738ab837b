"""Benchmarks are run seldom, and use what is inside of p2p."""

import importlib

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_each_still_finds_what_it_imports(name):
    importlib.import_module(f"benchmarks.{name}")
