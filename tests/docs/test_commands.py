"""Every command in the README and in docs/: its settings exist and fit together. Its files need not be there."""

import re
import shlex

import pytest

import p2p
from tests.conftest import ROOT

COMMAND = re.compile(r"^ {4}(?:python |p2p )(train|export|infer|serve)(?:\.py)?\b([^#\n]*)", re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTED_ELSEWHERE = {"extending", "coming-from-the-reference"}  # with the files that they need
SPACE = re.compile(r"=(tag\(log,)?(interval|range|choice)\(")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def commands():
    texts = [page.read_text() for page in PAGES if page.stem not in TESTED_ELSEWHERE]
    found = [part for text in texts for part in COMMAND.findall(text.replace(" && ", "\n    "))]
    return sorted({(command, words.strip()) for command, words in found})


@pytest.mark.parametrize(("command", "words"), commands())
def test_its_settings_fit_together(command, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    split = shlex.split(words)
    sweep, words = (
        "-m" in split,
        [word for word in split if word not in ("-m", "ckpt_path=last")],
    )  # of which there is no run
    if sweep:  # a job: the first of all values
        words = [re.sub(",.*", "", SPACE.sub("=", word)) for word in words]
    p2p.compose(words, command=command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_has_no_conflicts_of_a_merge(page):
    assert not re.findall("^(?:<<<<<<<|>>>>>>>) .*", page.read_text(), re.MULTILINE)
