"""Names of files and values of settings in messages."""

from __future__ import annotations

from collections.abc import Sequence


def as_typed(value: object) -> str:
    """A setting's value as on a command line, without quotes."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(as_typed, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(text: str) -> str:
    r"""A name, in which any bytes can be, on one line and for any terminal.

    Control characters and bytes that are not UTF-8 become escapes, such as \n or \xe9.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # what Python makes of a byte that is not UTF-8, see PEP 383
        return f"\\x{ord(character) - 0xDC00:x}"
    return character.encode("unicode_escape").decode()
