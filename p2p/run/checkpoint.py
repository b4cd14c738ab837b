"""Checkpoint files: write one, find the one that a setting names, and read which run it comes from."""

from __future__ import annotations

from pathlib import Path

from p2p.system.atomic import replacing

ORIGIN = "p2p"  # the key under which a checkpoint holds its origin


def write_checkpoint(path: Path, contents: dict) -> None:
    """torch.save, atomically.

    Raises:
        OSError: it cannot be written, such as on a full disk; what was there stays.
    """
    import torch  # where it is needed, here and below: settings, also a run's own, are checked before torch is there

    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save(contents, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # the disk's, which torch's writer hides behind its own
                raise error.__context__ from None
            raise


def origin_of(checkpoint: Path) -> dict[str, str | None]:
    """What `p2p.training.saving.Checkpoints` noted in a checkpoint; nothing in an early or a damaged one.

    Returns:
        "run": of all checkpoints of a run the same, also when it is resumed; "record": its settings, as in train.yaml.
    """
    import torch

    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)[ORIGIN]
    except Exception:  # whatever a foreign or damaged file makes the unpickler say; who needs its weights says it
        return {}


def check_checkpoint(path: Path) -> None:
    """Raise a ValueError if a checkpoint that is to be converted is no file, such as the folder of its run."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a checkpoint, such as {path / 'checkpoints/last.ckpt'}")
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}: name one, such as runs/default/checkpoints/last.ckpt")


def newest_checkpoint(run_dir: Path) -> Path:
    """checkpoints/last.ckpt, or best.ckpt if that is of a later run: the last one was killed when it had no other."""
    paths = [run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")]
    return max(paths, key=lambda path: origin_of(path).get("run") or "")  # which begin with the time


def find_checkpoint(run_dir: Path, name: str, *, setting: str = "ckpt_path") -> Path:
    """The file that ckpt_path=`name`, or another `setting`, means: last, best, or a path.

    Raises:
        ValueError: it is no name, or it is the last or the best of an earlier run than the other.
    """
    if not isinstance(name, str):
        raise ValueError(f"{setting}={name} is not valid: use last, best or the path of a checkpoint")
    if name not in ("last", "best"):
        return Path(name).expanduser()
    path, newest = run_dir / "checkpoints" / f"{name}.ckpt", newest_checkpoint(run_dir)
    if path.is_file() and origin_of(path).get("run") != origin_of(newest).get("run"):
        raise ValueError(
            f"{path} belongs to an earlier run than {newest.name} beside it, because the newer run was killed before it"
            f" saved {name}.ckpt: use {setting}={newest.stem}, or give the path of another checkpoint"
        )
    return path
