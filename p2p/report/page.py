"""Pages of one file each, from the templates in `pages/`: their style, script and data stand inside."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from p2p.config.shown import shown
from p2p.system import atomic
from p2p.system.urls import is_url

TEMPLATES = Path(__file__).parent / "pages"
PAGES = {"training": "Training", "gallery": "Translated images", "sweep": "Sweep"}  # by template, and their titles
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def publish(template: str, folder: Path, *, title: str, data: dict[str, Any]) -> Path:
    """Write `<template>.html` and make `index.html`, which is the latest page of a folder, another name of it.

    Args:
        template: one of PAGES.
        folder: where to; it exists.
        title: heading of the page.
        data: what the page shows, as JSON has it; numbers are finite.

    Returns:
        index.html.
    """
    others = {name: f"{page}.html" for page, name in PAGES.items() if page != template and _is_there(folder, page)}
    page = render(template, title=title, data=data | {"title": shown(title), "pages": others})
    atomic.write(folder / f"{template}.html", page)
    atomic.link(folder / f"{template}.html", folder / "index.html")
    return folder / "index.html"


def render(template: str, *, title: str, data: dict[str, Any]) -> str:
    """The text of a page."""
    parts = {
        "title": html.escape(shown(title)),
        "style": (TEMPLATES / "style.css").read_text(),
        "script": (TEMPLATES / "page.js").read_text(),
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (TEMPLATES / f"{template}.html").read_text())


def data_of(page: str) -> dict[str, Any]:
    """What `render` was given.

    Raises:
        ValueError: it is no page of ours.
    """
    found = DATA.search(page)
    if found is None:
        raise ValueError("there is no data in the page")
    return json.loads(found[1])


def address(path: Path | str, folder: Path) -> str:
    """The relative address of a file in a page that lies in `folder`; names may be any bytes."""
    return quote(str(path), safe=":/") if is_url(path) else quote(os.fsencode(os.path.relpath(path, folder)))


def _is_there(folder: Path, page: str) -> bool:
    return (folder / f"{page}.html").is_file()
