"""The settings in nested dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def leaves(node: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts with its dotted path; an empty dict is a value, a list is one."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_reference(value: object) -> bool:
    """Whether it is made of other settings, or of where the samples lie: it asks neither Hydra nor the machine."""
    return isinstance(value, str) and "${" in value and ":" not in re.sub(r"\$\{(oc\.select|samples):", "${", value)
