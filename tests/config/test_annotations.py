"""What is read from sources is what Python's own `get_type_hints` says once they are imported."""

import inspect
import re
from collections.abc import Callable
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hydra.utils import get_object

from p2p.config.annotations import argument_kinds
from p2p.shipped import CONF

TARGETS = sorted({t for path in CONF.rglob("*.yaml") for t in re.findall(r"_target_: (p2p\.\S+)", path.read_text())})
UNSEEN = dict.fromkeys(("Pair", "Stages"), object)  # imported for type checkers alone
UNSEEN |= {"optuna": SimpleNamespace(pruners=SimpleNamespace(BasePruner=object))}
PLAIN = {bool, int, float, str, list, NoneType, Any, Callable}


def plain(hint):
    if get_origin(hint) in (Union, UnionType):
        return set().union(*map(plain, get_args(hint)))
    if get_origin(hint) is Literal:
        return {type(each) for each in get_args(hint)}
    return {get_origin(hint) or hint} & PLAIN


def test_of_every_argument_of_every_option():
    checked = 0
    for target in TARGETS:
        made = get_object(target)
        hints = get_type_hints(made.__init__ if isinstance(made, type) else made, localns=UNSEEN)
        for name, parameter in inspect.signature(made).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # no setting
                continue
            expected = plain(hints[name]) if name in hints else set()
            assert argument_kinds(target, name) & PLAIN == expected, (target, name)
            checked += bool(expected)
    assert checked > 100


@pytest.mark.parametrize(
    "target", ["p2p.", "p2p.codecs.fast.Nothing", "p2p.codecs.fast.Fast.decode.x", "p2p.nothing.X"]
)
def test_of_what_is_not_there_nothing_is_said(target):
    assert argument_kinds(target, "quality") == set()


def test_of_what_a_class_hands_on_to_its_base():
    unet = "p2p.models.lab.LabUNet"
    assert [argument_kinds(unet, name) for name in ("width", "depth")] == [{int}, {int, NoneType}]
    assert argument_kinds("p2p.models.unet.UNet", "unet") == argument_kinds(unet, "nothing") == set()


def test_of_another_package_by_importing_it():
    assert argument_kinds("lightning.Trainer", "max_epochs") == {int, NoneType}
