"""How a training saves: each checkpoint atomically, with the record of the settings that it was trained with."""

from __future__ import annotations

import os
import re
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning import Callback
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from p2p.run.checkpoint import ORIGIN, origin_of, write_checkpoint
from p2p.run.record import as_record
from p2p.system import atomic

OURS = re.compile(r"(last|best|epoch_\d+)\.ckpt")  # what the callbacks of conf/callbacks name their files


class Checkpoints(TorchCheckpointIO):
    """What Lightning writes and removes checkpoints by.

    Its own way is a copy in memory, a file in the system's temporary folder, and a move, which from one disk to another
    is a copy over the earlier checkpoint.

    A checkpoint and its record are one file, so they agree whenever the process is killed. When the first checkpoint is
    there, a copy of the record becomes the run's `train.yaml`, what Hydra knows of the run is kept in `.hydra`, and
    checkpoints of earlier runs of the same name are removed. Until then all stay: what fails before its first
    checkpoint harms none. Hydra itself would write `.hydra` before a command is checked, over that of the run before.

    Args:
        cfg: see `p2p.run.record.as_record` for what is kept of it, when the first checkpoint is saved.
        run_dir: runs/<name>.
        resumed: the checkpoint that the training goes on from, whose run it is then; None starts a new one.
    """

    def __init__(self, cfg: DictConfig, run_dir: Path, *, resumed: Path | None = None):
        self._cfg, self._run_dir = cfg, run_dir
        self._start = f"{datetime.now(timezone.utc).isoformat(timespec='microseconds')} by process {os.getpid()}"
        self._run = self._start if resumed is None else origin_of(resumed).get("run")
        self._first = True

    @cached_property
    def _record(self) -> str:
        return f"# Written by train.py, started {self._start}\n{OmegaConf.to_yaml(as_record(self._cfg))}"

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        """Write it. Of several processes only the first comes here.

        Raises:
            OSError: it cannot be written, such as on a full disk; the earlier one of this name stays.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = checkpoint | {ORIGIN: {"run": self._run, "record": self._record}}
        write_checkpoint(path, checkpoint)
        if self._first:
            atomic.write(self._run_dir / "train.yaml", self._record)
            if HydraConfig.initialized():
                self._keep_hydra()
            for other in path.parent.iterdir():
                if OURS.fullmatch(other.name) and origin_of(other).get("run") != self._run:
                    other.unlink()
            self._first = False

    def _keep_hydra(self) -> None:
        """The files that Hydra names so: config, typed overrides and Hydra's own settings."""
        hydra, folder = HydraConfig.instance().cfg, self._run_dir / ".hydra"
        folder.mkdir(exist_ok=True)
        for name, node in {"config": self._cfg, "overrides": hydra.hydra.overrides.task, "hydra": hydra}.items():
            atomic.write(folder / f"{name}.yaml", OmegaConf.to_yaml(node))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove it, if it is there."""
        Path(path).unlink(missing_ok=True)


def check_savers(callbacks: dict[str, Callback], run_dir: Path) -> None:
    """Raise a ValueError where nothing would be saved, or the last and the best not where the commands look for them.

    Args:
        callbacks: by their names in the config.
        run_dir: runs/<name>.
    """
    savers = {name: each for name, each in callbacks.items() if isinstance(each, ModelCheckpoint)}
    if not savers:
        raise ValueError("no callback saves checkpoints, and the training would be lost: leave callbacks.last in")
    for name in ("last", "best"):
        expected = run_dir / "checkpoints" / f"{name}.ckpt"
        if name not in savers:
            continue
        saved = Path(savers[name].dirpath or ".", f"{savers[name].filename}.ckpt")
        if os.path.realpath(saved) != os.path.realpath(expected):
            raise ValueError(
                f"callbacks.{name} saves {expected}, where the other commands look for it: leave its filename and"
                " dirpath as they are, and add another callback for other files"
            )
