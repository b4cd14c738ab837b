"""Check files of torch.export before torch loads them, because loading such a file can run code in it.

Seen in torch 2.14: pickles among sample inputs, weights and constants; shared libraries of AOT Inductor; expressions,
which SymPy evaluates; guards, types of trees and names, which become Python code; operators, which are looked up from
`torch` on, `torch.os.system` among them. Programs of this project need none of that: numbers, names, and operators of
ATen.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model\.pt|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model\.pt|model_constants_config\.json)"
)
NAME = re.compile(r"[A-Za-z0-9_.]*|\d+\*s\d+")  # the second of a side that is a multiple of a number
SYMBOL = r"Symbol\('[a-z]\w*'(, (positive|negative|nonnegative|nonzero|integer)=(True|False))*\)"
FUNCTION = r"(Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Integer|Rational)\("
OPERATOR = r"torch\.ops\.aten\.(?!from_file)_?[a-z]\w*\.[A-Za-z]\w*|_operator\.(add|sub|mul|floordiv|getitem)"
TREE = r'([][{}\s,:\d]|null|"(|type|context|children_spec|null|\[\]|builtins\.(tuple|dict|list))")*'
RULES = {  # by key, at any depth; all other text is a NAME
    "target": re.compile(OPERATOR),
    "expr_str": re.compile(rf"({SYMBOL}|{FUNCTION}|[su]\d+|[-+*/\d\s,()])*"),
    "in_spec": re.compile(TREE),
    "out_spec": re.compile(TREE),
    "torch_version": re.compile(r"[\w.+-]*"),
}
NEVER_RUN = {"stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node", "custom", "guards_code"}
FOREIGN = "which p2p does not write and which could run code: do not use it"
DAMAGE = (OSError, RuntimeError, RecursionError, UnicodeDecodeError, json.JSONDecodeError, zipfile.BadZipFile)


def check_archive(path: Path) -> None:
    """Raise a ValueError if a .pt2 holds anything but a graph of ATen's operators and its tensors.

    Its guards, and pickles of sample inputs, are left alone, which `p2p.deploy.graph` never reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # as torch reads files of early versions
            full = archive.namelist()
        names = [name.partition("/")[2] for name in full]
        _check_members(path, dict(zip(names, full, strict=True)), count=len(full))
        reader = torch._C.PyTorchFileReader(str(path))
        _check_members(path, {name: name for name in reader.get_all_records()}, count=len(full))
        for name in filter(re.compile(r".*\.json").fullmatch, names):
            for key, value in _texts(json.loads(reader.get_record(name))):
                if not RULES.get(key, NAME).fullmatch(value):
                    raise ValueError(f"{path} has {key}={value[:80]!r} in {name}")
    except DAMAGE as error:
        raise ValueError(f"{path} is not a program of torch.export, or is damaged: export again") from error
    except ValueError as error:
        raise ValueError(f"{error}, {FOREIGN}") from None


def _check_members(path: Path, names: dict[str, str], *, count: int) -> None:
    """Names inside the archive's folder, with those that they have in full."""
    for name, full in names.items():
        if not MEMBERS.fullmatch(name):
            raise ValueError(f"{path} holds {full}")
    if len(names) != count:
        raise ValueError(f"{path} holds files twice")


def _texts(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested lists and objects, and every key of an object, with the key that it is under."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, list):
        for each in node:
            yield from _texts(each, key)
    elif isinstance(node, dict):
        for name, value in node.items():
            yield "", name
            if name not in NEVER_RUN:
                yield from _texts(value, name)
