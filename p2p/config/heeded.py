"""Refuse settings that have no effect because of another setting. A sweep prints a line instead.

Only what is typed counts: a default that is of no use does no harm. What a class can tell by itself, because its
arguments are null where they are not given, it refuses itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from p2p.config.shown import as_typed
from p2p.shipped import CONF

SEVERAL = ("losses", "metrics", "callbacks", "logger", "experiment")  # groups whose options combine


class Use(NamedTuple):
    """What settings are good for.

    Attributes:
        settings: a pattern of their names.
        used: whether they are, by a command's config.
        why: if they are not.
    """

    settings: str
    used: Callable[[DictConfig], bool]
    why: str


def _of_format(format: str) -> Callable[[DictConfig], bool]:
    return lambda cfg: cfg.codec.get("format") in (None, format)


USES = {
    "train": (
        Use(
            r"discriminator(\.\w+)*|model\.augment",
            lambda cfg: cfg.adversarial is not None,
            "adversarial=none trains no discriminator",
        ),
        Use(
            r"model\.lambda_l1",
            lambda cfg: any(loss.get("weight") is None for loss in cfg.losses.values()),
            "no loss takes its weight from it",
        ),
        Use(
            r"data\.input_channels",
            lambda cfg: cfg.data.get("labels") is None,
            "data.labels and data.edges say how many channels inputs have",
        ),
        Use(
            r"data\.range",
            lambda cfg: cfg.data.get("labels") is None or cfg.data.get("target_range") is None,
            "inputs are labels, and data.target_range is that of targets",
        ),
        Use(
            r"data\.percentiles",
            lambda cfg: "percentile" in (cfg.data.get("range"), cfg.data.get("target_range")),
            "it is of data.range=percentile alone",
        ),
    ),
    "export": (),
    "serve": (),
    "infer": (
        Use(r"export|stale", lambda cfg: cfg.weights is None, "weights= names what translates"),
        Use(
            r"restore_size|fit|transform\.(preprocess|multiple)",
            lambda cfg: cfg.size == "model",
            "size=input and size=tile translate and write each image at its own size",
        ),
        Use(r"shard_size", lambda cfg: cfg.output_format != "files", "it is of output_format=tar and parquet"),
        Use(
            r"gallery",
            lambda cfg: cfg.output_format == "files" or cfg.gallery == 0,
            "outputs in shards have no page of results",
        ),
        Use(r"tile_stats", lambda cfg: cfg.size == "tile", "it is of size=tile alone"),
        Use(
            r"transform\.(preprocess|multiple)",
            lambda cfg: cfg.fit == "stretch",
            "fit=pad resizes to the model's size by itself",
        ),
        Use(
            r"codec\.quality",
            lambda cfg: cfg.codec.get("format") not in ("png", "tiff", "npy"),
            "it applies only to codec.format=jpg or webp",
        ),
        Use(r"codec\.subsampling", _of_format("jpg"), "it applies only to codec.format=jpg"),
        Use(r"codec\.png_level", _of_format("png"), "it applies only to codec.format=png"),
        Use(r"codec\.lossless", _of_format("webp"), "it applies only to codec.format=webp"),
    ),
}


def check_heeded(cfg: DictConfig, *, command: str, overrides: list[str], sweep: bool) -> None:
    """Refuse what is typed and would be ignored.

    Args:
        cfg: what the overrides have led to.
        overrides: of the command line.
        sweep: this is one job of several, some of which may use it.

    Raises:
        ValueError: the first such setting, and why it would be.
    """
    typed = {each.key_or_group: each for each in OverridesParser.create().parse_overrides(overrides)}
    for key, override in typed.items():
        value = None if override.is_delete() else override.value()
        chosen = value if isinstance(value, list) and (CONF / key).is_dir() else []
        if len(chosen) > 1 and key not in SEVERAL:
            raise ValueError(
                f"{key}={as_typed(value)} chooses {len(chosen)} options, of which only one would count: use one, such"
                f" as {key}={chosen[-1]}"
            )
        if len(chosen) > 1 and "none" in chosen:
            raise ValueError(f"{key}={as_typed(value)} is not valid: use none by itself, or leave it out")
        for use in USES[command]:
            if value is not None and re.fullmatch(use.settings, key) and not use.used(cfg):
                sentence = f"{key}={as_typed(value)} would be ignored, because {use.why}"
                if not sweep:
                    raise ValueError(f"{sentence}: leave it out")
                print(sentence)
    if {"reconstruction", "losses"} <= typed.keys():
        same, losses = (as_typed(typed[key].value()) for key in ("reconstruction", "losses"))
        raise ValueError(
            f"reconstruction={same} is the same as losses={same}, and losses={losses} is given, too: leave one out"
        )
