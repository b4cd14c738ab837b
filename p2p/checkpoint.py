"""Checkpoint files in a run's folder: which one is meant, and what each says of where it comes from."""

from __future__ import annotations

from pathlib import Path

ORIGIN = "p2p"  # the key under which a checkpoint holds its origin


def origin_of(checkpoint: Path) -> dict[str, str | None]:
    """What `p2p.saving.Checkpoints` noted in a checkpoint; nothing if it is of an early version, or cannot be read.

    Returns:
        "run": of all checkpoints of a run the same, also when it is resumed; "record": its settings, as in train.yaml.
    """
    import torch  # where it is needed: p2p.cli, which checks settings before torch is imported, imports this module

    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)[ORIGIN]
    except Exception:  # whatever a foreign or damaged file makes the unpickler say; who needs its weights says it
        return {}


def find_checkpoint(run_dir: Path, name: str) -> Path:
    """The file that ckpt_path=`name` means: last, best, or a path.

    Raises:
        ValueError: it is no name, or the best of an earlier run than the last.
    """
    if not isinstance(name, str):
        raise ValueError(f"ckpt_path={name} cannot be: use last, best or the path of a checkpoint")
    if name not in ("last", "best"):
        return Path(name).expanduser()
    path, last = (run_dir / "checkpoints" / f"{stem}.ckpt" for stem in (name, "last"))
    if path.is_file() and (run := origin_of(last).get("run")) and run != origin_of(path).get("run"):
        raise ValueError(
            f"{path} is of an earlier run than {last}, which was stopped before it had a best of its own: use"
            " ckpt_path=last, or give the path of another checkpoint"
        )
    return path
