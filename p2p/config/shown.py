"""Names of files and values of settings in messages."""

from __future__ import annotations

import difflib
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


def nearest(word: str, words: list[str]) -> str:
    """ ", did you mean ..." with up to two of the words, those first that differ only in what stands before the dot."""
    last = word.rpartition(".")[2]
    near = [w for w in words if w.rpartition(".")[2] == last] + difflib.get_close_matches(word, words, n=2, cutoff=0.7)
    return f", did you mean {' or '.join(dict.fromkeys(near[:2]))}" if near else ""
