"""The record of a run: the settings that it was trained with, in each checkpoint and in `train.yaml`.

It keeps the references of the config, such as `max_epochs: ${epochs}`, so that a setting that is changed when the run
is resumed, or by hand, reaches every place that follows from it. What depends on the machine or on the command line
is saved as the value that it had.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from p2p.run.checkpoint import newest_checkpoint, origin_of
from p2p.run.earlier import modernize, with_todays_names
from p2p.run.leaves import is_reference, leaves
from p2p.run.trust import check_record


def read_record(run_dir: Path, checkpoint: Path | None = None, *, instead: str = "") -> DictConfig:
    """The settings that a checkpoint was trained with, resolved.

    Args:
        run_dir: runs/<name>.
        checkpoint: None: the run's newest one.
        instead: for the error's end: what else would do.

    Raises:
        ValueError: there is no such run, or its record cannot be read.
    """
    path = record_of(checkpoint or newest_checkpoint(run_dir), run_dir)
    if path is None:
        raise ValueError(f"there is no trained run in {run_dir}: train first, with the same name={instead}")
    record = load_record(path)
    OmegaConf.resolve(record)
    return record


def record_of(checkpoint: Path, run_dir: Path) -> Path | None:
    """The file that holds a checkpoint's settings: train.yaml beside it, else that of the run's folder, or itself.

    train.yaml is of the last start of train.py, and begins with a line that says which. It is of another start than the
    checkpoint where the run was resumed since, where the checkpoint is of an earlier run, and where train.py was killed
    between writing the two. The checkpoint itself counts then. None: there is no record.
    """
    own = origin_of(checkpoint).get("record")
    for path in (folder / "train.yaml" for folder in (checkpoint.absolute().parent.parent, run_dir)):
        if path.is_file() and (own is None or _start(path.read_bytes()) == _start(own.encode())):
            return path
    return None if own is None else checkpoint


def _start(record: bytes) -> bytes:
    return record.partition(b"\n")[0]


def load_record(path: Path) -> DictConfig:
    """The record of a train.yaml or in a checkpoint, with its references.

    Raises:
        ValueError: the file holds no settings, or names what a record may not (`p2p.run.trust`).
    """
    try:
        text = path.read_text() if path.suffix == ".yaml" else origin_of(path).get("record") or ""
        record = OmegaConf.create(with_todays_names(text))
    except (YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise ValueError(f"{path}{line} cannot be read as YAML: mend it, or restore it from a copy") from None
    if not isinstance(record, DictConfig) or "generator" not in record:
        raise ValueError(f"{path} holds no settings of a training: restore it from a copy")
    check_record(record, path)
    modernize(record)
    return record


def validated_weights(record: DictConfig) -> Literal["trained", "ema"]:
    """The weights of the generator that the run was validated with, which are those to deploy."""
    return "ema" if record.get("callbacks", {}).get("ema", {}).get("validate") else "trained"


def as_record(cfg: DictConfig) -> DictConfig:
    """What is to be saved of the config that a run is trained with."""
    record = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    for path, value in leaves(OmegaConf.to_container(cfg, resolve=False)):
        if isinstance(value, str) and "${" in value and not is_reference(value):
            OmegaConf.update(record, path, OmegaConf.select(cfg, path))
    return record
