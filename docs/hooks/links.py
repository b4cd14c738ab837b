"""Adds the files of the repository that docs/ links to, so that each link works on the site and on GitHub."""

import os
import re
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PAGES = {  # Markdown outside of docs/ -> its page
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "data/models/emoji.md": "models/emoji.md",
    "data/samples/README.md": "samples.md",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config):
    """Name anchors as GitHub does."""
    from pymdownx.slugs import slugify

    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files, config):
    """Add the pages of PAGES, and each file that a page links to, as `source/<path>`; a folder becomes a list."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text()))
    pages = [file for file in files if file.is_documentation_page()]
    for page in pages:  # grows by the lists of folders
        for target in LINK.findall(page.content_string):
            path = _repository_path(page.src_uri, target)
            uri = _site_path(path)
            if files.get_file_from_path(uri) is None and (ROOT / path).is_dir():
                names = sorted(each.name for each in (ROOT / path).iterdir() if each.is_file())
                listed = "\n".join(f"- [{name}]({name})" for name in names)
                files.append(File.generated(config, uri, content=f"# {path}\n\n{listed}\n"))
                pages.append(files.get_file_from_path(uri))
            elif files.get_file_from_path(uri) is None and (ROOT / path).is_file():
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links between files of the repository into links between files of the site."""
    here = page.file.src_uri

    def moved(match):
        uri = _site_path(_repository_path(here, match[1]))
        return os.path.relpath(uri, PurePosixPath(here).parent)

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def _repository_path(page, target):
    """What a link on a page names, as a path from the root of the repository."""
    there = {uri: path for path, uri in PAGES.items()}.get(page)
    there = there or (page.removeprefix("source/") if page.startswith("source/") else f"docs/{page}")
    return os.path.normpath(PurePosixPath(there).parent / target)


def _site_path(path):
    """Where a file of the repository is on the site."""
    if path in PAGES or path.startswith("docs/"):
        return PAGES.get(path) or path.removeprefix("docs/")
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}"
