"""Train pix2pix on image pairs: what `train.py` does, in order."""

from __future__ import annotations

import copy
import json
import os
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, ListConfig, OmegaConf

from p2p.commands.results import Trained
from p2p.commands.run import settle_norm_stats
from p2p.config.pasteable import command_line, run_settings
from p2p.config.resume import checkpoint_to_resume, is_in_place, to_resume, what_is_kept
from p2p.config.shown import as_typed
from p2p.data.percentile import percentiles
from p2p.interop.config import load_start, start_from_reference
from p2p.report.tables import scores_of, show_scores
from p2p.system.atomic import disk_of
from p2p.system.device import check_trainer_device
from p2p.system.gpu_faults import or_say_what_fits
from p2p.system.lock import held
from p2p.system.memory import keep_freed_memory
from p2p.system.plural import counted
from p2p.training.callbacks.resume import resume_callback
from p2p.training.each_network import check_strategy
from p2p.training.logs import going_on, log_settings
from p2p.training.monitors import Monitor, check_monitors
from p2p.training.resume import check_networks, check_that_something_is_left, read_checkpoint
from p2p.training.saving import Checkpoints, check_savers
from p2p.training.start import find_start, start_from_run
from p2p.training.writer import Writer

TRIAL_STEPS = 5  # the first of them make the optimizers' state, the fourth records a CUDA graph

MEASURED = "P2P_MEASURED_RANGES"  # by the first process, for those that it starts
PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16"}  # of trainer=auto, which has Lightning's names

say = rank_zero_only(print)  # the first of several processes speaks and writes


def main(cfg: DictConfig) -> Trained:
    """Train, alone in cfg.run_dir, where everything lands, or say which batch_size the GPU's memory holds."""
    attempt = partial(try_steps, cfg)
    with held(Path(cfg.run_dir)), disk_of(Path(cfg.run_dir)):
        return or_say_what_fits(partial(train, cfg), setting="batch_size", size=cfg.batch_size, attempt=attempt)


def try_steps(cfg: DictConfig, batch_size: int) -> None:
    """Train a few steps with another batch_size, and keep nothing."""
    cfg = copy.deepcopy(cfg)
    cfg.batch_size = batch_size
    nothing = {"callbacks": [], "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    steps = {"max_epochs": -1, "max_steps": TRIAL_STEPS, "limit_val_batches": 0}
    with redirect_stdout(None):
        trainer = instantiate(cfg.trainer, **nothing, **steps, _convert_="all")
        trainer.fit(instantiate(cfg.model, _convert_="all"), instantiate(cfg.data, _convert_="all"))


def train(cfg: DictConfig) -> Trained:
    """Validate, train, validate again."""
    keep_freed_memory()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    resume, checkpoint, kept = find_what_to_resume(cfg)
    earlier = None if resume else find_start(cfg.init_from, init_discriminator_from=cfg.init_discriminator_from)
    start = start_from_reference(cfg) if resume is None and earlier is None else {}
    settle_range(cfg)
    data = made(cfg, "data")
    loggers = make_loggers(cfg, resume, checkpoint)
    why_on_cpu = check_trainer_device(cfg.trainer.accelerator, cfg.trainer.devices)
    trainer = make_trainer(cfg, data, loggers, resume)
    model = make_model(cfg, trainer)
    load_start(model, start)
    if earlier is not None:
        start_from_run(model, earlier)
    if resume is not None:
        check_networks(checkpoint, resume, model)
        check_that_something_is_left(checkpoint, trainer)

    trainer.loggers = loggers if resume is None else []  # or it would be logged as step 0 again
    (before,) = trainer.validate(model, data, ckpt_path=resume, verbose=False, weights_only=True)
    trainer.loggers = loggers
    goes_on = resume is not None and is_in_place(cfg, resume)
    log_settings(loggers, cfg, None if goes_on else {name: before[name] for name in model.scores})
    for line in kept:  # when nothing is left that could be refused
        say(line)
    where = f"{trainer.strategy.root_device}{f' ({why_on_cpu})' if why_on_cpu else ''}"
    precision = PRECISIONS.get(cfg.trainer.precision, cfg.trainer.precision)
    say(f"training on {where} in {precision}, {counted(len(data.dataset('train')), 'pair')}")
    fit(cfg, trainer, model, data, resume)
    (after,) = trainer.validate(model, data, verbose=False)

    show_result(before, after)
    say(f"next: {command_line('export', **run_settings(cfg.run_dir))}")
    return Trained(Path(cfg.run_dir), scores={name: after[name] for name in model.scores}, score=after[cfg.monitor])


def find_what_to_resume(cfg: DictConfig) -> tuple[Path | None, dict | None, list[str]]:
    """The checkpoint that cfg.ckpt_path names, what it holds, and lines on the settings that the run goes on with."""
    resume = None if cfg.ckpt_path is None else checkpoint_to_resume(cfg)
    return resume, None if resume is None else read_checkpoint(resume), what_is_kept(cfg, resume)


def settle_range(cfg: DictConfig) -> None:
    """Put two numbers in the place of data.range=percentile, so that the record tells them to export.py and infer.py.

    Inputs and targets have numbers of their own, unless data.target_range says something else. Processes that this one
    starts find what it has measured in their environment; those of torchrun measure the same, each for itself.
    """
    kinds = {"range": cfg.data.get("range"), "target_range": cfg.data.get("target_range")}
    if "percentile" not in kinds.values():
        return
    if os.environ.get("LOCAL_RANK", "0") != "0" and (measured := os.environ.get(MEASURED)):
        cfg.data.update(json.loads(measured))
        return
    data, shares = made(cfg, "data", range="auto", target_range=None), cfg.data.percentiles
    if not isinstance(shares, ListConfig) or len(shares) != 2 or not shares[0] < shares[1]:
        given = as_typed(shares)
        raise ValueError(f"data.percentiles={given} is not valid: use two numbers from 0 to 100, such as [0.1,99.9]")
    dataset = data.dataset("train")
    of_inputs, of_targets = dataset.readings
    if kinds["range"] == "percentile" and of_inputs.labels is None:
        cfg.data.range = percentiles([pair.input for pair in dataset.pairs], of_inputs, [*shares])
        say(f"inputs: {shares[0]:g} to {shares[1]:g} per cent of the numbers are {as_typed(cfg.data.range)}")
    if kinds["target_range"] == "percentile" or (kinds["range"] == "percentile" and kinds["target_range"] is None):
        found = percentiles([pair.target for pair in dataset.pairs], of_targets, [*shares])
        shared = of_inputs.labels is not None and kinds["target_range"] is None  # data.range is of targets alone
        cfg.data["range" if shared else "target_range"] = found
        say(f"targets: {shares[0]:g} to {shares[1]:g} per cent of the numbers are {as_typed(found)}")
    os.environ[MEASURED] = json.dumps(
        OmegaConf.to_container(OmegaConf.masked_copy(cfg.data, ["range", "target_range"]))
    )


def make_loggers(cfg: DictConfig, resume: Path | None, checkpoint: dict | None) -> list[Logger]:
    """Those of cfg.logger, of which TensorBoard's goes on where a run goes on in its own folder."""
    nodes = cfg.get("logger") or OmegaConf.create()
    if resume is not None and is_in_place(cfg, resume):
        nodes = going_on(nodes, checkpoint)
    return [*instantiate(nodes).values()]


def make_trainer(cfg: DictConfig, data: LightningDataModule, loggers: list[Logger], resume: Path | None) -> Trainer:
    """With all callbacks, and with what it saves checkpoints by."""
    run_dir, callbacks = Path(cfg.run_dir), made(cfg, "callbacks")
    if resume is not None:
        callbacks["resume"] = resume_callback(cfg, resume, data)
    if not loggers:
        callbacks.pop("learning_rate", None)  # refuses to have nowhere to write to
    # The last checkpoint is saved behind the best ones, so that it knows of them.
    ordered = sorted(callbacks.values(), key=lambda each: isinstance(each, ModelCheckpoint) and each.monitor is None)
    trainer = made(cfg, "trainer", callbacks=[writer := Writer(), *ordered], logger=loggers)
    check_savers(callbacks, run_dir)
    if trainer.limit_val_batches == 0:
        raise ValueError("trainer.limit_val_batches=0 leaves no score to choose the best epoch by: use 1 or more")
    trainer.strategy.checkpoint_io = Checkpoints(cfg, run_dir, writer=writer, resumed=resume)
    return trainer


def make_model(cfg: DictConfig, trainer: Trainer) -> LightningModule:
    """The model of that many processes; cfg is told what norm_stats=auto stands for."""
    settle_norm_stats(cfg, processes=trainer.num_devices * trainer.num_nodes)
    model = made(cfg, "model")
    check_strategy(trainer, model)
    check_monitors(monitors_of(cfg), dict(model.scores.items(keep_base=False)), others=logged_by(cfg))
    return model


def monitors_of(cfg: DictConfig) -> list[Monitor]:
    """The run's own, and those of its schedule and its callbacks."""
    monitors = [Monitor("monitor", cfg.monitor, "monitor_mode", cfg.monitor_mode)]
    if "mode" in cfg.scheduler:
        monitors.append(Monitor("monitor", cfg.monitor, "scheduler.mode", cfg.scheduler.mode))
    for name, node in cfg.callbacks.items():
        if node and node.get("monitor") is not None:
            key = f"callbacks.{name}"
            monitors.append(Monitor(f"{key}.monitor", node.monitor, f"{key}.mode", node.get("mode")))
    return monitors


def logged_by(cfg: DictConfig) -> list[str] | None:
    """What is logged beside the scores of validation; None where a class of the user's own may log anything."""
    targets = [node.get("_target_", "") for node in (cfg.model, *filter(None, cfg.callbacks.values()))]
    if not all(target.startswith(("p2p.", "lightning.")) for target in targets):
        return None
    perceptual = [f"val/{name.upper()}" for name in ("fid", "lpips") if cfg.callbacks.get("perceptual", {}).get(name)]
    game = ["train/D", "train/G_gan"] if cfg.adversarial else []
    return [*perceptual, *game, *(f"train/G_{name}" for name in cfg.losses), "epoch", "step"]


def fit(
    cfg: DictConfig, trainer: Trainer, model: LightningModule, data: LightningDataModule, resume: Path | None
) -> None:
    """Train to the end, or until a signal stops it, after which a line says how to go on."""
    try:
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    except SystemExit:  # what Lightning makes of a signal, see p2p.system.signals
        if trainer.global_step and (last := Path(cfg.run_dir, "checkpoints/last.ckpt")).is_file():
            say(f"{os.path.relpath(last)} can be exported, or continued: {to_resume(cfg)}")
        raise


@rank_zero_only
def show_result(before: dict[str, float], after: dict[str, float]) -> None:
    """The table of scores at the end."""
    first, last = scores_of(before), scores_of(after)
    rows = {"input unchanged": first.get("unchanged"), "before training": first["val"], "after training": last["val"]}
    show_scores(rows)


def made(cfg: DictConfig, part: str, **options: object) -> Any:
    """What a node describes; cfg keeps its references, for the record. Hydra (1.3) resolves in place what they name."""
    return instantiate(copy.deepcopy(cfg)[part], **options, _convert_="all")
