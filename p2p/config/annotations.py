"""What the arguments of a config's `_target_` may be, read from its source: importing it may take torch's seconds."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import hydra

OWN = "p2p."
BUILTINS = {each.__name__: each for each in (bool, int, float, str, list, dict, tuple)} | {
    "Any": Any,
    "Callable": Callable,
}


def argument_kinds(target: str, name: str) -> set[type]:
    """The types that an argument is annotated with, {int, NoneType} of `int | None`; none where they cannot be told.

    Sources of this package are read, and what is of another is imported.
    """
    if target.startswith(OWN):
        module, _, attribute = target.rpartition(".")
        return set(_read(module, attribute, name))
    try:
        found = hydra.utils.get_object(target)
        function = getattr(found, "__init__") if isinstance(found, type) else found  # noqa: B009 - mypy distrusts it
        hint = get_type_hints(function).get(name)
    except Exception:  # of whatever library that is; what is wrong with it is said when it is made
        return set()
    return set() if hint is None else set(_kinds(hint))


def _kinds(hint: object) -> Iterator[Any]:
    """int, str and NoneType of `int | Literal["auto"] | None`."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for each in get_args(hint):
            yield from _kinds(each)
    elif origin is Literal:
        yield from map(type, get_args(hint))
    else:
        yield origin or hint


def _read(module: str, attribute: str, name: str) -> Iterator[type]:
    """The same as `_kinds` of a function's argument, or of a class's `__init__`.

    That of its first base counts if it has none of its own, or one that hands this argument on as a keyword.
    """
    where, node = _definition(module, attribute)
    if not f"{where}.".startswith(OWN):  # a base of another package
        yield from argument_kinds(f"{where}.{attribute}", name)
    if isinstance(node, ast.ClassDef):
        inits = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
        handed_on = all(init.args.kwarg and name not in _arguments(init) for init in inits)
        if handed_on and node.bases and isinstance(node.bases[0], ast.Name):
            yield from _read(where, node.bases[0].id, name)
        node = inits[0] if inits else None
    if isinstance(node, ast.FunctionDef) and (annotation := _arguments(node).get(name)) is not None:
        yield from _kinds_in(annotation, where)


def _arguments(function: ast.FunctionDef) -> dict[str, ast.expr | None]:
    """Its arguments by name, with their annotations."""
    return {each.arg: each.annotation for each in (*function.args.args, *function.args.kwonlyargs)}


def _kinds_in(node: ast.expr, module: str) -> Iterator[Any]:
    """The same as `_kinds` of an annotation in that module's source."""
    match node:
        case ast.BinOp(left=left, right=right):
            yield from _kinds_in(left, module)
            yield from _kinds_in(right, module)
        case ast.Constant(value=None):
            yield NoneType
        case ast.Subscript(value=ast.Name(id="Literal"), slice=words):
            choices = words.elts if isinstance(words, ast.Tuple) else [words]
            yield from (type(each.value) for each in choices if isinstance(each, ast.Constant))
        case ast.Subscript(value=value):
            yield from _kinds_in(value, module)
        case ast.Name(id=word) if word in BUILTINS:
            yield BUILTINS[word]
        case ast.Name(id=word):
            where, found = _definition(module, word)
            if isinstance(found, ast.Assign):  # an alias, such as Preprocess = Literal[...]
                yield from _kinds_in(found.value, where)
            else:
                yield object  # a class of some library
        case _:
            yield object


def _definition(module: str, name: str) -> tuple[str, ast.stmt | None]:
    """The module where a name is bound, followed through imports, and in this package the statement that binds it."""
    for node in _statements(module):
        match node:
            case ast.ImportFrom(module=other, names=names) if any((n.asname or n.name) == name for n in names):
                return _definition(other, name) if other and other.startswith(OWN) else (other or module, None)
            case ast.FunctionDef(name=word) | ast.ClassDef(name=word) if word == name:
                return module, node
            case ast.Assign(targets=[ast.Name(id=word)]) if word == name:
                return module, node
    return module, None


@cache
def _statements(module: str) -> list[ast.stmt]:
    """Those of a module's source, and of its `if TYPE_CHECKING:`; none where there is no such module."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return []
    if spec is None or spec.origin is None:
        return []
    body = ast.parse(Path(spec.origin).read_text()).body
    return [each for node in body for each in (node.body if isinstance(node, ast.If) else [node])]
