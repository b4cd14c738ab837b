"""Several processes that train together: the same weights, each with its own part of every batch.

Lightning's DDP wraps the whole module in one DistributedDataParallel, which expects every backward to reach every
parameter. Of two networks that step in turn each is left out by the other's step, so that it would have to search the
graph for unused parameters in every step, and its hooks would exchange the gradients of one network amid the step of
the other. Here nothing is wrapped. All start from the weights of the first process, and the gradients of the network
whose turn it is are averaged while its backward goes on: see `p2p.training.exchange`.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from p2p.system import signals

# As gloo and NCCL put it that another process is gone.
LEFT_ALONE = re.compile(r"gloo|NCCL|Connection (?:reset|closed|refused)|Broken pipe", re.IGNORECASE)
ADVICE = "what it said stands above, and ckpt_path=last goes on from the last checkpoint"
GONE = "another of the processes that train together has ended, and this one could not go on without it"
T = TypeVar("T")
LOOK_S = 0.5  # between two looks at the other processes
GRACE_S = 3.0  # for this process to end by itself, where what ended another one has met it as well


class EachNetwork(DDPStrategy):
    """trainer.strategy=each_network, which trainer=ddp chooses: networks average their gradients one by one."""

    def configure_ddp(self) -> None:
        """In the place of wrapping the module: weights and buffers of the first process are everyone's."""
        _sync_module_states(self.model)

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    # After an error here the others are somewhere else, or gone; the last checkpoint is saved without them.

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the other processes."""
        if not self._launcher.failed:
            super().barrier(*args, **kwargs)

    def broadcast(self, obj: T, src: int = 0) -> T:
        """What the first process has."""
        return obj if self._launcher.failed else super().broadcast(obj, src)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all say so, or any."""
        return decision if self._launcher.failed else super().reduce_boolean_decision(decision, all)


StrategyRegistry.register("each_network", EachNetwork, description=EachNetwork.__doc__)


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine, as Lightning does, and lets none of them wait for one that is gone.

    Lightning kills this process, too, when another one fails, and leaves the others waiting when this one does.

    Attributes:
        failed: this process has, by an error.
    """

    failed = False
    _interrupted = False

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Call the function, with all processes there."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:  # all stop at the same step and save; then Lightning ends them
            self._interrupted = True
            raise
        except BaseException as error:
            self.failed = True
            gone = self._gone(wait_s=GRACE_S) if LEFT_ALONE.search(str(error)) else None
            self.kill(signal.SIGKILL)
            if gone is None:
                raise
            raise ValueError(gone) from error

    def _watch(self) -> None:
        """End this process, which may wait for it for ever, when another one has failed."""
        while (gone := self._gone()) is None:
            if all(process.returncode == 0 for process in self.procs):
                return
            time.sleep(LOOK_S)
        time.sleep(GRACE_S)
        if not (self.failed or self._interrupted or signals.received is not None):
            self.kill(signal.SIGKILL)
            signals.end(f"error: {gone}")

    def _gone(self, *, wait_s: float = 0.0) -> str | None:
        """The sentence about another process of this machine that has failed by now; None if none has."""
        deadline = time.monotonic() + wait_s
        while True:
            for number, process in enumerate(self.procs, start=2):
                if process.poll():
                    which = f"process {number} of {self.num_processes} that train together"
                    return f"{which} has ended ({how(process)}): {ADVICE}"
            if time.monotonic() >= deadline:
                return None if self.procs or not wait_s else GONE
            time.sleep(0.05)


def how(process: subprocess.Popen) -> str:
    """A process has ended."""
    code = process.returncode
    return f"exit status {code}" if code > 0 else signal.Signals(-code).name


def check_strategy(trainer: Trainer, model: LightningModule) -> None:
    """Refuse several processes that would wait for gradients that a step of one network leaves out.

    Raises:
        ValueError: it is DDP as Lightning has it by itself, and there are two networks.
    """
    options = getattr(trainer.strategy, "_ddp_kwargs", None)  # of Lightning's DDPStrategy
    one_by_one = options is None or isinstance(trainer.strategy, EachNetwork) or options.get("find_unused_parameters")
    if one_by_one or model.discriminator is None:
        return
    raise ValueError(
        f"trainer.devices={trainer.num_devices} needs trainer=ddp, which knows that each step moves one of the two"
        f" networks: use trainer=ddp trainer.devices={trainer.num_devices}, or trainer.devices=1"
    )
