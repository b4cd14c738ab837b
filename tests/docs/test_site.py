"""The documentation as a site. `make docs` builds it and checks its links; here is what a build does not see."""

import importlib.util
import re

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from p2p.shipped import CONF
from tests.conftest import ROOT

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def hook(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/hooks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows():
    """Of the configuration page: {setting: what it says}."""
    found = {}
    for key, meaning in re.findall(r"^\| `([\w.]+)` \| .*? \| (.*) \|$", hook("configuration").page(), re.MULTILINE):
        found[key] = found.get(key) or meaning
    return found


def keys(config: DictConfig, prefix=""):
    for key in config:
        value = config._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_interpolation() and len(value):
            yield from keys(value, f"{prefix}{key}.")
        elif not str(key).startswith("_"):
            yield prefix + str(key)


@pytest.mark.parametrize("command", sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "base"))
def test_the_configuration_page_has_every_setting_of_a_command(command, rows):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(command, overrides=["run_dir=unused"])
    assert len(list(keys(config))) > 15
    assert not [key for key in keys(config) if key not in rows]


def test_the_configuration_page_has_every_setting_of_every_option(rows):
    for path in CONF.glob("*/*.yaml"):
        content = yaml.safe_load(path.read_text())
        if path.parent.name != "hydra" and "_target_" in (content or {}):
            prefix = path.parent.name
            assert not [key for key in content if key[0] not in "_d" and f"{prefix}.{key}" not in rows], path


def test_each_setting_follows_another_or_says_what_it_means():
    page = hook("configuration").page()
    assert not re.findall(r"^\| `[\w.]+` \| (?!as `).*? \|  \|$", page, re.MULTILINE)


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.md", str(SITE["nav"])))
    assert {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} <= listed
    assert set(hook("links").PAGES.values()) <= listed
