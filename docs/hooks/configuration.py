"""The page reference/configuration.md: every setting of conf/, with its default and the comment beside it."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
PAGE = "reference/configuration.md"
HEAD = """# Configuration

Every setting of p2p, made from the YAML files in `conf/` and their comments. Set a value with `key=value`,
and choose an option of a group with `group=option`:

    python train.py epochs=50 generator=resnet_9blocks generator.width=32

`python train.py --cfg job` prints the settings of a run. Write a list as `'[1,2]'` and no value as `null`.
In the columns below, "as `epochs`" means that the setting follows another one, unless you set it.
"""


class Setting(NamedTuple):
    """A key with its dots, the text of its default, and what the comments say."""

    key: str
    default: str
    meaning: str


def on_files(files, config):
    """Add the page to the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """The whole page as Markdown."""
    commands = [path for path in sorted(CONF.glob("*.yaml"), key=_order) if path.stem != "base"]
    known = meanings()
    parts = [HEAD, "## All commands", table(settings(CONF / "base.yaml"))]
    groups: dict[str, list[str]] = {}
    for path in commands:
        parts += [f"## {_called(path)}", table(settings(path))]
        for group, default in _defaults(path):
            text = "" if default is None else f", default {', '.join(map(_code, _listed(default)))}"
            groups.setdefault(group, []).append(f"{_called(path)}{text}")
    parts += ["## Groups", "Each group is a folder of `conf/`, and each option is a file in it."]
    for group, used in groups.items():
        parts += [f"### {group}", f"Of {'; '.join(used)}."]
        for path in sorted((CONF / group).glob("*.yaml")):
            parts += [f"#### {group}={path.stem}", *option(path, known)]
    return "\n\n".join(part for part in parts if part) + "\n"


def meanings() -> dict[str, str]:
    """What each setting means: the first comment on it. Files that only change its value need none."""
    known: dict[str, str] = {}
    for path in [*CONF.glob("*.yaml"), *sorted(CONF.glob("*/*.yaml"))]:
        if path.parent.name != "hydra":
            for setting in settings(path, _prefix(path)):
                known.setdefault(setting.key, setting.meaning)
                known[setting.key] = known[setting.key] or setting.meaning
    return known


def option(path: Path, known: dict[str, str]) -> list[str]:
    """An option of a group: what it is, what it builds on, its class, its settings."""
    about = _about(path)
    content = yaml.safe_load(path.read_text()) or {}
    base = [each for each in content.get("defaults", []) if isinstance(each, str) and each != "_self_"]
    others = [pair for each in content.get("defaults", []) if isinstance(each, dict) for pair in each.items()]
    lines = [about]
    if base:
        lines.append("It has the settings of " + ", ".join(f"`{path.parent.name}={name}`" for name in base) + ", and:")
    if "_target_" in content:
        lines.append(f"It calls `{content['_target_']}`.")
    chosen = [Setting(re.sub(r"override |/", "", key), f"`{value}`", "chooses this option") for key, value in others]
    own = [row._replace(meaning=row.meaning or known[row.key]) for row in settings(path, _prefix(path))]
    return [*lines, table(chosen + own)]


def settings(path: Path, prefix: str = "") -> list[Setting]:
    """The settings of a YAML file, in its order."""
    text = path.read_text()
    node = yaml.compose(text)
    return list(_settings(node, text.splitlines(), prefix)) if node else []


def _settings(mapping, lines, prefix):
    for key, value in mapping.value:
        if key.value.startswith("_") or (not prefix and key.value in ("defaults", "hydra")) or key.value == "defaults":
            continue
        first = key.start_mark.line
        above = _above(lines, first)
        if isinstance(value, yaml.MappingNode) and value.value:
            beside = lines[first][key.end_mark.column :].partition("#")[2].strip()
            inner = list(_settings(value, lines, f"{prefix}{key.value}."))
            if about := " ".join([*above, beside]).strip():
                yield Setting(f"{prefix}{key.value}", "", about)
            yield from inner
        else:
            source = lines[first][value.start_mark.column : value.end_mark.column]
            beside = lines[first][value.end_mark.column :].partition("#")[2].strip()
            follows = re.fullmatch(r"\$\{\.*([\w.]+)\}", source)
            default = f"as `{follows[1]}`" if follows else "required" if source == "???" else f"`{source}`"
            yield Setting(f"{prefix}{key.value}", default, " ".join([*above, beside]).strip())


def table(rows: list[Setting]) -> str:
    """Rows as a Markdown table; no rows are no table."""
    head = ["| setting | default | meaning |", "|---|---|---|"]
    lines = [f"| `{row.key}` | {_cell(row.default)} | {_cell(row.meaning).replace('<', '&lt;')} |" for row in rows]
    return "\n".join(head + lines) if rows else ""


def _prefix(path: Path) -> str:
    """What the settings of a file begin with."""
    return "" if path.parent == CONF or "@package _global_" in path.read_text() else f"{path.parent.name}."


def _above(lines: list[str], first: int) -> list[str]:
    """The comment directly above a line, unless it stands at the head of the file, where it is about the file."""
    start = first
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return [line.lstrip("# ") for line in lines[start:first]] if start else []


def _about(path: Path) -> str:
    """The comment at the head of a file."""
    found = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            found.append(line.lstrip("# "))
    return " ".join(found)


def _defaults(path: Path) -> list[tuple[str, object]]:
    """The groups of a command, with the options that it starts with; also those that an option brings."""
    found = []
    for each in (yaml.safe_load(path.read_text()) or {}).get("defaults", []):
        for key, value in each.items() if isinstance(each, dict) else ():
            group = key.lstrip("/")
            if (CONF / group).is_dir():
                found.append((group, value))
                for name in _listed(value):
                    found += _defaults(CONF / group / f"{name}.yaml") if value is not None else []
    return found


def _listed(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`"


def _called(path: Path) -> str:
    """How a command is started in a clone."""
    script = f"{path.stem}.py"
    return script if (CONF.parent / script).exists() else f"p2p {path.stem}"


def _order(path: Path) -> tuple[int, str]:
    names = ["train", "export", "infer", "serve"]
    return (names.index(path.stem) if path.stem in names else len(names), path.stem)
