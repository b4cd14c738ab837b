"""Commands that messages suggest. Pasted into a shell, they give each setting the intended value."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from p2p.config.known import COMMANDS

Value = str | int | float | bool | None


def program(command: str) -> list[str]:
    """The words that start train, export or infer in the way in which this process was started.

    `python train.py`, with the script beside the running one; `p2p train`; or `python -m p2p train`, which will do
    wherever p2p can be imported.
    """
    running = sys.argv[0]
    if Path(running).suffix == ".py" and Path(running).stem in COMMANDS:
        return ["python", str(Path(running).with_name(f"{command}.py"))]
    if Path(running).name != "p2p":
        return ["python", "-m", "p2p", command]
    found = shutil.which("p2p")  # a shell that has not activated the environment finds none, or another one
    return ["p2p" if found and Path(found).samefile(running) else running, command]


OmegaConf.register_new_resolver("program", lambda command: shlex.join(program(command)), replace=True)  # for --help


def command_line(command: str, *flags: str, **settings: Value) -> str:
    """`python <command>.py key=value ...`, or as `program` starts it, in Hydra's quotes and the shell's.

    Args:
        command: train, export or infer.
        flags: what needs no quotes, such as "--help".
        settings: key -> value.
    """
    return shlex.join([*program(command), *flags, *(f"{key}={hydra_value(value)}" for key, value in settings.items())])


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
