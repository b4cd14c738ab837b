"""What the fields of manifest.json may hold. The file can come from anyone, and what reads it later trusts it.

OmegaConf's structured configs, which p2p has as well, check types, and turn "8" into 8 for an int: here it is ranges,
words, shapes and digests that matter.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

Rule = Callable[[object], bool]

LARGEST = 2**16  # pixels of a side, and channels
MOST_IMAGES = 2**20  # of a batch


def whole(least: int, most: float) -> Rule:
    """An int in a range; true and false are none."""
    return lambda value: type(value) is int and least <= value <= most


def one_of(*words: str) -> Rule:
    """One of some words."""
    return lambda value: isinstance(value, str) and value in words


def matching(pattern: str) -> Rule:
    """Text that a pattern describes from its beginning to its end."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def exactly(expected: object) -> Rule:
    """What never differs, and is written for other readers."""
    return lambda value: value == expected and not isinstance(value, bool)


def optional(rule: Rule) -> Rule:
    """null as well."""
    return lambda value: value is None or rule(value)


def rows_of(values: Rule) -> Rule:
    """An object of short names, and values that suit."""
    return lambda value: isinstance(value, dict) and all(text(key) and values(each) for key, each in value.items())


def number(value: object) -> bool:
    """Neither NaN nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def one_of_both(value: object) -> bool:
    """true or false."""
    return isinstance(value, bool)


def shape(value: object) -> bool:
    """[C, H, W]."""
    return isinstance(value, list) and len(value) == 3 and all(map(side, value))


def sizes(value: object) -> bool:
    """Of `p2p.deploy.sizes.Sizes`."""
    if not isinstance(value, dict) or value.keys() != {"min", "opt", "max", "stride"} or not side(value["stride"]):
        return False
    least, best, most = (value[key] for key in ("min", "opt", "max"))
    if not all(isinstance(each, list) and len(each) == 2 and all(map(side, each)) for each in (least, best, most)):
        return False
    return all(a <= b <= c for a, b, c in zip(least, best, most, strict=True))


def span(value: object) -> bool:
    """Two numbers, the first the smaller."""
    return isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] < value[1]


side = whole(1, LARGEST)


def one_side_or_two(value: object) -> bool:
    """Of a square, or [H, W]."""
    return side(value) or (isinstance(value, list) and len(value) == 2 and all(map(side, value)))


text = matching(r"(?s).{0,4096}")
line = matching(r"[^\n]{0,200}")
figure = optional(lambda value: number(value) or text(value))
digest = matching("[0-9a-f]{64}")
bare_name = matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

PROGRAM: dict[str, Rule] = {
    "backend": matching(r"(?!.{101})[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"),
    "file": bare_name,
    "dtype": one_of("float32", "float16", "bfloat16", "uint8"),
    "max_batch": optional(whole(1, MOST_IMAGES)),
    "versions": rows_of(matching(r"[0-9A-Za-z.+_-]{1,99}")),
    "gpu": optional(line),
    "min_batch": whole(1, MOST_IMAGES),
    "architecture": optional(line),
    "driver": optional(line),
    "considered": optional(lambda value: isinstance(value, list) and all(map(rows_of(figure), value))),
    "sizes": optional(sizes),
    "precision": optional(one_of("fp32", "bf16", "fp16", "int8", "fp8")),
}
MANIFEST: dict[str, Rule] = {
    "program_sha256": digest,
    "input_shape": shape,
    "output_shape": shape,
    "norm_stats": one_of("instance", "running"),
    "direction": one_of("AtoB", "BtoA"),
    "preprocess": one_of("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"),
    "multiple": optional(whole(1, LARGEST)),
    "image_size": one_side_or_two,
    "stride": optional(whole(1, LARGEST)),
    "input_range": optional(span),
    "target_range": optional(span),
    "labels": optional(whole(2, LARGEST)),
    "edges": one_of_both,
    "background": optional(matching("[a-z]{3,30}|#[0-9A-Fa-f]{3,8}")),
    "checkpoint": text,
    "checkpoint_sha256": digest,
    "checkpoint_bytes": optional(whole(0, math.inf)),
    "checkpoint_mtime_ns": optional(whole(-(2**63), 2**63)),
    "psnr_db": rows_of(figure),
    "built": text,
    "build_seconds": number,
    "value_range": exactly([-1.0, 1.0]),
    "mean": exactly(0.5),
    "std": exactly(0.5),
    "created": text,
}


def check(record: dict[str, object], rules: dict[str, Rule]) -> None:
    """Raise a ValueError for the first field that holds what it cannot. Fields without a rule are left alone."""
    for name, rule in rules.items():
        if name in record and not rule(record[name]):
            shown = json.dumps(record[name])
            raise ValueError(f"{name} cannot be {shown if len(shown) < 60 else f'{shown[:60]}...'}")
