"""Names of files in messages: any bytes can be in one."""

from __future__ import annotations


def shown(text: str) -> str:
    r"""On one line, for any terminal: control characters and bytes that are not UTF-8 as escapes, "\n" or "\xe9"."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # what Python makes of a byte that is not UTF-8, see PEP 383
        return f"\\x{ord(character) - 0xDC00:x}"
    return character.encode("unicode_escape").decode()
