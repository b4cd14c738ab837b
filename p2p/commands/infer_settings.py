"""What settings of `infer.py` mean for a program, and whether they suit it: checked before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from p2p.codecs.codec import Codec
from p2p.config.pasteable import command_line, run_settings
from p2p.config.shown import as_typed
from p2p.data.transforms.transform import Transform
from p2p.deploy.manifest import Manifest
from p2p.deploy.stale import replaced_checkpoint


def transform_for(manifest: Manifest, options: DictConfig) -> Transform:
    """What brings images to the size that a program takes: as in training, but for the options that are given.

    Raises:
        ValueError: an option cannot be given here.
    """
    for key in ("load_size", "flip"):
        if options[key] is not None:
            raise ValueError(f"transform.{key} applies only to training: leave it out")
    if options.image_size not in (None, manifest.image_size):
        raise ValueError(
            f"transform.image_size={as_typed(options.image_size)} is not the size that the program takes,"
            f" {as_typed(manifest.image_size)}:"
            " leave it out, or train and export with another image_size"
        )
    preprocess = options.preprocess or manifest.preprocess
    multiple = options.multiple
    if multiple is None and not preprocess.endswith("crop"):
        multiple = manifest.multiple
    return instantiate(options, image_size=manifest.image_size, preprocess=preprocess, multiple=multiple, flip=False)


def check_alpha(alpha: str, codec: Codec) -> None:
    """Raise a ValueError for another word than drop and keep, or where the files have no alpha."""
    if alpha not in ("drop", "keep"):
        raise ValueError(f"alpha={alpha} is not known: use drop or keep")
    if alpha == "keep" and not getattr(codec, "keeps_alpha", False):
        raise ValueError(f"alpha=keep needs files that have alpha, and {codec.suffix} has none: use codec.format=png")


def check_fresh(cfg: DictConfig) -> None:
    """Refuse a program whose checkpoint a later training has replaced, or say so where cfg.stale allows it."""
    if cfg.stale not in ("refuse", "use"):
        raise ValueError(f"stale={cfg.stale} is not known: use refuse or use")
    checkpoint = replaced_checkpoint(Path(cfg.export))
    if checkpoint is None:
        return
    path = os.path.relpath(checkpoint)
    fact = f"{cfg.export} was made from older weights than {path} has now"
    if cfg.stale == "use":
        print(f"{fact}; it is used because of stale=use")
        return
    options = run_settings(cfg.run_dir)
    if checkpoint.name != "last.ckpt":
        options["ckpt_path"] = "best" if checkpoint.name == "best.ckpt" else path
    if Path(cfg.export) != Path(cfg.run_dir) / "export":
        options["output"] = cfg.export
    raise ValueError(
        f"{fact}: export them with {command_line('export', **options)}, or add stale=use to use the old ones"
    )
