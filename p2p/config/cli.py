"""The frame of each command: compose the config, and turn a user's mistake into one sentence."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from p2p.config.arguments import check_arguments, home_in_quotes, with_weights, without_plus
from p2p.config.explain import explain
from p2p.config.heeded import check_heeded
from p2p.config.help import FLAGS, help_page
from p2p.config.known import check_known
from p2p.config.paths import settle_paths
from p2p.config.resume import as_hydra_takes_them, resumed_settings
from p2p.config.settings import check_settings
from p2p.config.shown import shown
from p2p.config.sweep import JobFailed, summarized
from p2p.shipped import CONF
from p2p.system import gpu_faults, signals
from p2p.system.imports import lasting

GRACE_S = 1.0
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own switch: set to 1 by the user, errors keep their stack trace


def run_command(
    name: str,
    arguments: list[str],
    *,
    load: Callable[[], Callable[[DictConfig], Any]],
    summarize: Callable[[Path, str], str | None],
) -> None:
    """Run a command, configured by `conf/<name>.yaml` and the arguments of a command line.

    `load` imports the command, and with it torch, when its config has been checked, and returns its function.
    `summarize` shows the jobs of a sweep, see `p2p.config.sweep.summarized`. What a user can do wrong
    ends the program with one sentence on stderr and exit status 1: a ValueError, which this project raises for that
    alone, an error of the operating system, or anything that Hydra has to say about the command line. Any other
    exception is a bug and keeps its stack trace.
    """
    full = wants_trace()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that a terminal cannot show is no error
    if {*arguments}.intersection(FLAGS):
        with one_sentence(name, full=full):
            print(help_page(name), flush=True)
        return
    # libgomp, which torch loads, reads it: threads that spin while they wait take the cores from other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with one_sentence(name, full=full):
        arguments, deletions = for_hydra(name, arguments)
    typed, sys.argv = sys.argv, [sys.argv[0], *arguments]  # where Hydra looks

    def job(cfg: DictConfig) -> float | None:
        sys.argv = typed  # for processes that main starts
        os.environ[FULL_ERROR] = "1" if full else "0"  # for processes that main starts
        try:
            with one_sentence(name, full=full):  # here, too: Hydra adds a line to what leaves a job
                quiet_libraries()
                cfg = checked(name, cfg, deletions)
                with lasting():
                    main = load()
                signals.work()
                return main(cfg).score  # for Hydra's sweepers
        except SystemExit as end:
            if HydraConfig.get().mode != RunMode.MULTIRUN or not isinstance(end.code, str):
                raise
            print(end.code, file=sys.stderr, flush=True)
            raise JobFailed(end.code.removeprefix("error: ")) from None  # the sweep goes on
        finally:
            os.environ[FULL_ERROR] = "1"

    with one_sentence(name, full=full), hydra_raises(), summarized(summarize):
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)()


def wants_trace() -> bool:
    """Whether the user has asked for stack traces of his mistakes, too."""
    return os.environ.get(FULL_ERROR) == "1"


def for_hydra(name: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of a command line as Hydra takes them, and the deletions that are left to `checked`.

    Raises:
        ValueError: an argument is none of this command, see `check_arguments`.
    """
    # Hydra takes -m before or behind the overrides, and not among them.
    arguments = sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))
    if name == "serve":
        arguments = with_weights(arguments)
    check_arguments(name, arguments)
    arguments = home_in_quotes(arguments)
    if name == "infer":
        arguments = without_plus(arguments)
    return as_hydra_takes_them(arguments) if name == "train" else (arguments, [])


def checked(name: str, cfg: DictConfig, deletions: list[str]) -> DictConfig:
    """The settings that a command works by, from those that Hydra has composed and still can compose.

    Raises:
        ValueError: one of them cannot be, or there is no run to resume.
    """
    settle_paths(cfg)  # of which resumed_settings reads the checkpoint's
    overrides = list(HydraConfig.get().overrides.task)
    if name == "train" and cfg.ckpt_path is not None:
        cfg = resumed_settings(cfg, [*overrides, *deletions])
    check_known(cfg, command=name, overrides=overrides)
    check_settings(cfg, config_name=name, overrides=overrides)
    check_heeded(cfg, command=name, overrides=overrides, sweep=HydraConfig.get().mode == RunMode.MULTIRUN)
    return cfg


def auto_precision(accelerator: str) -> str:
    """Lightning's name for the precision to train in: bfloat16 on an NVIDIA GPU, else float32."""
    import torch  # where it is needed: it takes seconds

    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def short(name: str) -> str:
    """The name of one folder: without slashes, and at most 209 characters, as file systems take 255 bytes.

    What is changed ends with a hash, so that different names stay different.
    """
    plain = name.replace("/", "-")[:200]
    return name if plain == name else f"{plain}_{hashlib.sha1(name.encode()).hexdigest()[:8]}"


def of_job(folder: str) -> str:
    """The folder that a command writes to: in a sweep the job's own."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return HydraConfig.get().runtime.output_dir
    return folder


OmegaConf.register_new_resolver("auto_precision", auto_precision, replace=True)
OmegaConf.register_new_resolver("short", short, replace=True)
OmegaConf.register_new_resolver("of_job", of_job, replace=True)


def some_of(reasons: list[str], *, most: int = 5) -> str:
    """The first few, for one sentence."""
    more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
    return "; ".join(reasons[:most]) + more


def quiet_libraries() -> None:
    """Keep from the user what he can do nothing about: greetings, tips and warnings of the libraries."""
    # Filters, not levels, which Lightning sets anew when it is imported.
    for module in (
        "pytorch.utilities.rank_zero",
        "pytorch.accelerators.cuda",
        "pytorch.trainer.connectors.signal_connector",
        "fabric.utilities.rank_zero",
        "fabric.utilities.distributed",
    ):
        logging.getLogger(f"lightning.{module}").addFilter(lambda record: record.levelno >= logging.WARNING)
    for library in ("botocore", "aiobotocore"):  # which say where they have found credentials
        logging.getLogger(library).setLevel(logging.WARNING)
    for message in (
        r".*CUDA initialization.*",  # p2p.system.device says it
        r".*does not have many workers.*",  # loading is a hundredth of a CPU step; see PairedImages
        r".*number of training batches .* is smaller than the logging interval.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*callbacks used to create the checkpoint need to be provided.*",  # the user left one out
        r".*Found .* module\(s\) in eval mode at the start of training.*",
        r".*lr_scheduler\.step\(\).*before.*optimizer\.step\(\).*",  # the discriminator's is not Lightning's
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # torch 2.14 on Lightning 2.6
        r".*predict.* returned None.*",
        r".*The AccumulateGrad node's stream does not match.*",  # a captured step has a second one
    ):
        warnings.filterwarnings("ignore", message)
    threading.excepthook = partial(_of_a_thread, threading.excepthook)


def _of_a_thread(hook: Callable[[threading.ExceptHookArgs], object], args: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer tells the main thread, which raises it again, of a disk that is full."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
        hook(args)


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Let Hydra raise what it would otherwise print in several lines before it exits by itself."""
    before = os.environ.get(FULL_ERROR, "0")
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        os.environ[FULL_ERROR] = before


@contextmanager
def one_sentence(config_name: str, *, full: bool) -> Iterator[None]:
    """Leave the program with a sentence where one can be said; `full` keeps the stack trace as well."""
    try:
        yield
    except Exception as error:  # a user's mistake becomes a sentence, a bug is raised again
        message = explain(error, config_name)
        if os.environ.get("LOCAL_RANK", "0") != "0":  # the first process, if it fails alike, says so and ends this one
            time.sleep(GRACE_S)
        if gpu_faults.failure(error) is not None:
            if full:
                traceback.print_exception(error)
            # Without cleaning up any more: threads and destructors of its libraries may wait for the GPU for ever.
            signals.end(f"error: {shown(message or str(error))}")
        if full or message is None:
            raise
        sys.exit(f"error: {shown(message)}")
