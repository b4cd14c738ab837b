"""Commands that the user is told to type: pasted into a shell, they give each setting the value that is meant."""

from __future__ import annotations

import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

COMMANDS = ("train", "export", "infer")
Value = str | int | float | bool | None


def command_line(command: str, *flags: str, **settings: Value) -> str:
    """`python <command>.py key=value ...`, in Hydra's quotes and the shell's; the script is beside the running one.

    Args:
        command: train, export or infer.
        flags: what needs no quotes, such as "+pipeline=overlap".
        settings: key -> value.
    """
    running = Path(sys.argv[0])
    script = running.with_name(f"{command}.py") if running.stem in COMMANDS else f"{command}.py"
    words = [str(script), *flags, *(f"{key}={hydra_value(value)}" for key, value in settings.items())]
    return shlex.join(["python", *words])


def run_settings(run_dir: str | Path) -> dict[str, str]:
    """The setting by which every command finds a run's folder: name, or run_dir elsewhere."""
    path = os.path.relpath(run_dir)
    if path.startswith("runs/"):
        return {"name": path.removeprefix("runs/")}
    return {"run_dir": str(Path(run_dir).absolute().resolve()) if path.startswith("..") else path}


def hydra_value(value: Value) -> str:
    """The value as Hydra's command line takes it, without the quotes of a shell."""
    if value is None:
        return "null"
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    # A dollar before a brace would be a reference: one backslash more, and those before it double.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    try:
        plain = _parser().parse_override(f"key={text}").value()
    except HydraException:
        plain = None
    return text if isinstance(plain, str) and plain == text else QuotedString(text, Quote.double).with_quotes()


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()
