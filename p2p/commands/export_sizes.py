"""What `export.py size=` and its kin ask for, and whether it suits the generator."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from p2p.config.shown import as_typed
from p2p.deploy.auto import may_use_tensorrt
from p2p.deploy.fields import LARGEST
from p2p.deploy.sizes import Sizes, check_sizes
from p2p.image_size import as_setting, height_and_width, suggestion

LEAST = 64  # pixels of a side that a program of any size takes at the least, where the stride is smaller
MOST, MOST_OF_TENSORRT = 8192, 2048  # and at the most; TensorRT reserves memory for all of it


def check_size(cfg: DictConfig, record: DictConfig) -> None:
    """Refuse what would not be heeded, or cannot be, before any work.

    Raises:
        ValueError: the first such setting, and what to do.
    """
    if cfg.size != "dynamic":
        for key in ("min_size", "opt_size", "max_size"):
            if cfg[key] is not None:
                raise ValueError(
                    f"{key}={as_typed(cfg[key])} applies only to size=dynamic: add that, or leave this out"
                )
    if cfg.size in ("model", "dynamic"):
        return
    if isinstance(cfg.size, str):
        raise ValueError(f"size={cfg.size} is not known: use model, dynamic, or one size, [height,width]")
    size_of(cfg, "size")
    if not (preprocess := record.transform.preprocess).endswith("crop"):
        raise ValueError(
            f"size={as_typed(cfg.size)} is one size, and this run has transform.preprocess={preprocess}, by"
            " which images keep different ones: use size=dynamic"
        )


def settle_size(cfg: DictConfig, record: DictConfig, *, stride: int) -> None:
    """Have the record's transform bring images to the one size that is asked for, if one is.

    Raises:
        ValueError: it does not suit the generator, whose stride that is.
    """
    if cfg.size in ("model", "dynamic"):
        return
    size = as_setting(*size_of(cfg, "size"))
    least = min(2 * stride, *height_and_width(record.image_size))  # what is mirrored at its border has two pixels
    if any(side % stride or side < least for side in height_and_width(size)):
        raise ValueError(
            f"size={as_typed(size)} does not suit this generator, whose sides are multiples of {stride}, {least} at"
            f" least: use {suggestion(size, multiple=stride, least=least)}"
        )
    for transform in (record.transform, record.data.transform):  # a record that is read has the second as a copy
        transform.image_size, transform.load_size = size, None


def dynamic_sizes(cfg: DictConfig, *, stride: int, trained: list[int]) -> Sizes:
    """What size=dynamic asks for, of a generator that was trained at [height, width].

    Raises:
        ValueError: a size is none, or does not suit the generator or the others.
    """
    most = MOST_OF_TENSORRT if may_use_tensorrt(cfg.backend._target_, cfg.backend.get("backends")) else MOST
    usual = {
        "min_size": [min(each, -(-LEAST // stride) * stride) for each in trained],
        "opt_size": trained,
        "max_size": [max(2 * each, most // stride * stride) for each in trained],
    }
    chosen = {key: usual[key] if cfg[key] is None else [*size_of(cfg, key)] for key in usual}
    if cfg.opt_size is None:  # inside of what is asked for
        low, high = chosen["min_size"], chosen["max_size"]
        chosen["opt_size"] = [max(a, min(b, c)) for a, b, c in zip(low, trained, high, strict=True)]
    sizes = Sizes(chosen["min_size"], chosen["opt_size"], chosen["max_size"], stride)
    check_sizes(sizes)
    return sizes


def size_of(cfg: DictConfig, key: str) -> tuple[int, int]:
    """Height and width of a setting that is [height,width], or one number for both."""
    height, width = height_and_width(OmegaConf.to_container(cfg)[key], key=key)
    if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
        raise ValueError(f"{key}={as_typed(cfg[key])} is out of range: use 1 to {LARGEST} pixels for each side")
    return height, width
