"""The page /docs: the OpenAPI description as HTML, without the scripts of another site that FastAPI's page loads."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

EXAMPLES = {
    "/translate": (
        "curl --data-binary @drawing.png -H 'Content-Type: image/png' URL/translate -o translation.png",
        "curl -F image=@a.png -F image=@b.png 'URL/translate?restore_size=true&format=jpg'",
    ),
    "/healthz": ("curl URL/healthz",),
    "/metrics": ("curl URL/metrics",),
    "/model": ("curl URL/model",),
}
TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>p2p: the HTTP interface</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
<body class="text">
<header>
<h1>p2p <span>the HTTP interface</span></h1>
<nav><a href="./">Page</a><a href="openapi.json">openapi.json</a></nav>
</header>
{parts}
</html>
"""


def page(description: dict[str, Any], url: str) -> str:
    """HTML of an OpenAPI description; url: where the server is, for the examples."""
    return TEMPLATE.format(parts="\n".join(_parts(description, url)))


def _parts(description: dict[str, Any], url: str) -> Iterator[str]:
    for path, methods in description["paths"].items():
        for method, facts in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(facts.get('description', ''))}</p>"
            for example in EXAMPLES.get(path, ()):
                yield f"<pre>{escape(example.replace('URL', url))}</pre>"
            if body := facts.get("requestBody"):
                yield _table("Body", [("", kind, "") for kind in body["content"]])
            if parameters := facts.get("parameters"):
                yield _table("Settings", [_setting(each) for each in parameters])
            answers = [(status, each["description"], "") for status, each in facts["responses"].items()]
            yield _table("Answers", answers) if len(answers) > 1 else ""


def _setting(parameter: dict[str, Any]) -> tuple[str, str, str]:
    schema = parameter["schema"]
    schema = next((each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"), schema)
    known = ", ".join(map(str, schema.get("enum", ["true", "false"] if schema["type"] == "boolean" else [])))
    default = parameter["schema"].get("default")
    return parameter["name"], known, "" if default is None else f"default: {str(default).lower()}"


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row if cell) for row in rows)
    return f"<h3>{title}</h3><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
