"""How a training saves: beside its steps, atomically, with the record of the settings that it was trained with."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning import Callback
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from p2p.run.checkpoint import ORIGIN, origin_of, write_checkpoint
from p2p.run.record import as_record
from p2p.system import atomic
from p2p.training.snapshot import snapshot
from p2p.training.writer import Writer

OURS = re.compile(r"(last|best|epoch_\d+)\.ckpt")  # what the callbacks of conf/callbacks name their files


# Where these are the same, two checkpoints differ in what the callbacks know alone. Weights alone have no loops.
MOMENT = ("global_step", "loops", "lr_schedulers")


class Checkpoints(TorchCheckpointIO):
    """What Lightning writes and removes checkpoints by.

    Its own way is a copy in memory, a file in the system's temporary folder, and a move, which from one disk to another
    is a copy over the earlier checkpoint. The training waits for it, for each file of an epoch anew.

    Here it waits for the copy of weights and averages in host memory, which a GPU makes in some 20 ms, and for a
    checkpoint before this one that is not on the disk yet. All that is saved at one moment, such as the last and the
    best, is one file with several names (hard links), and says what the last of them is to say.

    A checkpoint and its record are one file, so they agree whenever the process is killed. When the first checkpoint is
    there, a copy of the record becomes the run's `train.yaml`, what Hydra knows of the run is kept in `.hydra`, and
    checkpoints of earlier runs of the same name are removed. Until then all stay: what fails before its first
    checkpoint harms none. Hydra itself would write `.hydra` before a command is checked, over that of the run before.

    Args:
        cfg: see `p2p.run.record.as_record` for what is kept of it, when the first checkpoint is saved.
        run_dir: runs/<name>.
        writer: writes them, and removes them.
        resumed: the checkpoint that the training goes on from, whose run it is then; None starts a new one.
    """

    def __init__(self, cfg: DictConfig, run_dir: Path, *, writer: Writer, resumed: Path | None = None):
        self._cfg, self._run_dir, self._writer = cfg, run_dir, writer
        self._start = f"{datetime.now(timezone.utc).isoformat(timespec='microseconds')} by process {os.getpid()}"
        self._run = self._start if resumed is None else origin_of(resumed).get("run")
        self._first = True
        self._latest: Save | None = None

    @cached_property
    def _record(self) -> str:
        return f"# Written by train.py, started {self._start}\n{OmegaConf.to_yaml(as_record(self._cfg))}"

    @cached_property
    def _hydra(self) -> dict[str, str]:
        """The files that Hydra names so: config, typed overrides and Hydra's own settings."""
        if not HydraConfig.initialized():
            return {}
        hydra = HydraConfig.instance().cfg
        nodes = {"config": self._cfg, "overrides": hydra.hydra.overrides.task, "hydra": hydra}
        return {f"{name}.yaml": OmegaConf.to_yaml(node) for name, node in nodes.items()}

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        """Have it written when the next batch is trained, or by `teardown`. Of several processes the first comes here.

        Raises:
            OSError: one before could not be written, such as on a full disk; the earlier one of its name stays.
        """
        moment = [checkpoint.get(part) for part in MOMENT]
        latest, path = self._latest, Path(path)
        if latest is not None and latest.write in self._writer.due and latest.moment == moment:
            if "callbacks" in checkpoint:
                latest.contents["callbacks"], wait = snapshot(checkpoint["callbacks"])
                latest.waits.append(wait)
            latest.paths.append(path)
            return
        if latest is not None:  # one copy in memory at a time
            self._writer.start()
            latest.over.wait()
        contents, wait = snapshot(checkpoint | {ORIGIN: {"run": self._run, "record": self._record}})
        then = partial(self._replace_earlier_run, hydra=self._hydra)
        save = Save(moment, contents, [wait], [path], then)
        self._writer.submit(save.write)
        self._latest = save

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove it, if it is there, when what has been saved by now is written."""
        self._writer.submit(lambda: Path(path).unlink(missing_ok=True))

    def teardown(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: it could not be.
        """
        self._writer.wait()

    def _replace_earlier_run(self, folder: Path, *, hydra: dict[str, str]) -> None:
        """What happens when the first checkpoint is there, in this folder."""
        if not self._first:
            return
        atomic.write(self._run_dir / "train.yaml", self._record)
        for name, text in hydra.items():
            (self._run_dir / ".hydra").mkdir(exist_ok=True)
            atomic.write(self._run_dir / ".hydra" / name, text)
        for other in folder.iterdir():
            if OURS.fullmatch(other.name) and origin_of(other).get("run") != self._run:
                other.unlink()
        self._first = False


@dataclass(eq=False)
class Save:
    """A checkpoint that is to be written.

    Attributes:
        moment: that it is of.
        contents: a snapshot.
        waits: return when it is complete.
        paths: its names.
        then: what is to be done when it is written, in its folder.
        over: set when it has been written, or could not be.
    """

    moment: list
    contents: dict
    waits: list[Callable[[], None]]
    paths: list[Path]
    then: Callable[[Path], None]
    over: threading.Event = field(default_factory=threading.Event)

    def write(self) -> None:
        """The job."""
        try:
            first, *others = self.paths
            for path in self.paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            for wait in self.waits:
                wait()
            write_checkpoint(first, self.contents)
            for other in others:
                atomic.link(first, other)
            self.then(first.parent)
        finally:
            for wait in self.waits:
                with suppress(RuntimeError):  # of a GPU that has failed, which this job or the next step says
                    wait()
            self.contents.clear()  # its memory is free for the next one
            self.over.set()


def check_savers(callbacks: dict[str, Callback], run_dir: Path) -> None:
    """Raise a ValueError where nothing would be saved, or the last and the best not where the commands look for them.

    Args:
        callbacks: by their names in the config.
        run_dir: runs/<name>.
    """
    savers = {name: each for name, each in callbacks.items() if isinstance(each, ModelCheckpoint)}
    if not savers:
        raise ValueError("no callback saves checkpoints, and the training would be lost: leave callbacks.last in")
    for name, saver in savers.items():
        if saver.save_last:  # Lightning links or copies a file that may not be written yet
            raise ValueError(
                f"callbacks.{name}.save_last={saver.save_last} is not supported: leave it out, because callbacks.last"
                " saves the last epoch"
            )
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
