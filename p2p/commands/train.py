"""Train pix2pix on image pairs: what `train.py` does, in order."""

from __future__ import annotations

import copy
import os
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import lightning
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from p2p.commands.run import settle_norm_stats
from p2p.config.pasteable import command_line, run_settings
from p2p.config.resume import checkpoint_to_resume, is_in_place, to_resume, what_is_kept
from p2p.config.settings import check_strategy
from p2p.interop.config import load_start, start_from_reference
from p2p.report.tables import scores_of, show_scores
from p2p.system.atomic import disk_of
from p2p.system.device import check_trainer_device
from p2p.system.gpu_faults import alone, or_say_what_fits
from p2p.system.lock import held
from p2p.system.memory import keep_freed_memory
from p2p.training.callbacks.resume import resume_callback
from p2p.training.logs import going_on
from p2p.training.resume import check_networks, check_that_something_is_left, read_checkpoint
from p2p.training.saving import Checkpoints, check_savers

TRIAL_STEPS = 5  # the first of them make the optimizers' state, the fourth records a CUDA graph


def main(cfg: DictConfig) -> None:
    """Train, alone in cfg.run_dir, where everything lands, or say which batch_size the GPU's memory holds."""
    attempt = partial(try_steps, cfg) if alone() else None
    with held(Path(cfg.run_dir)), disk_of(Path(cfg.run_dir)):
        or_say_what_fits(partial(train, cfg), setting="batch_size", size=cfg.batch_size, attempt=attempt)


def try_steps(cfg: DictConfig, batch_size: int) -> None:
    """Train a few steps with another batch_size, and keep nothing."""
    cfg = copy.deepcopy(cfg)
    cfg.batch_size = batch_size
    nothing = {"callbacks": [], "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    steps = {"max_epochs": -1, "max_steps": TRIAL_STEPS, "limit_val_batches": 0}
    with redirect_stdout(None):
        trainer = instantiate(cfg.trainer, **nothing, **steps, _convert_="all")
        trainer.fit(instantiate(cfg.model, _convert_="all"), instantiate(cfg.data, _convert_="all"))


def train(cfg: DictConfig) -> None:
    """Validate, train, validate again."""
    keep_freed_memory()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    run_dir = Path(cfg.run_dir)
    say = rank_zero_only(print)  # the first of several processes speaks and writes
    resume = None if cfg.ckpt_path is None else checkpoint_to_resume(cfg)
    for line in what_is_kept(cfg, resume):
        say(line)
    found = None if resume is None else read_checkpoint(resume)
    start = start_from_reference(cfg) if resume is None else {}
    data = made(cfg, "data")
    callbacks = made(cfg, "callbacks")
    logger = cfg.get("logger") or OmegaConf.create()
    if resume is not None:
        callbacks["resume"] = resume_callback(cfg, resume, data)
        logger = going_on(logger, found) if is_in_place(cfg, resume) else logger
    loggers = instantiate(logger)
    if not loggers:
        callbacks.pop("learning_rate", None)  # refuses to have nowhere to write to
    # The last checkpoint is saved behind the best ones, so that it knows of them.
    ordered = sorted(callbacks.values(), key=lambda each: isinstance(each, ModelCheckpoint) and each.monitor is None)
    why_on_cpu = check_trainer_device(cfg.trainer.accelerator, cfg.trainer.devices)
    trainer = made(cfg, "trainer", callbacks=ordered, logger=list(loggers.values()))
    check_savers(callbacks, run_dir)
    if trainer.limit_val_batches == 0:
        raise ValueError("trainer.limit_val_batches=0 leaves no score to choose the best epoch by: use 1 or more")
    settle_norm_stats(cfg, processes=trainer.num_devices * trainer.num_nodes)
    model = made(cfg, "model")
    check_strategy(trainer, model)
    load_start(model, start)
    trainer.strategy.checkpoint_io = Checkpoints(cfg, run_dir, resumed=resume)
    if resume is not None:
        check_networks(found, resume, model)
        check_that_something_is_left(found, trainer)
    trainer.loggers = [] if resume is not None else [*loggers.values()]  # or it would be logged as step 0 again
    before = scores_of(trainer.validate(model, data, ckpt_path=resume, verbose=False, weights_only=True))
    trainer.loggers = [*loggers.values()]
    where = f"{trainer.strategy.root_device}{f' ({why_on_cpu})' if why_on_cpu else ''}"
    say(f"training on {where} in {cfg.trainer.precision}, {len(data.dataset('train'))} pairs")
    try:
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    except SystemExit:  # what Lightning makes of a signal, see p2p.system.signals
        if trainer.global_step and (last := run_dir / "checkpoints/last.ckpt").is_file():
            say(f"{os.path.relpath(last)} can be exported, or resumed: {to_resume(cfg)}")
        raise
    after = scores_of(trainer.validate(model, data, verbose=False))

    rows = {
        "input unchanged": before.get("unchanged"),
        "before training": before["val"],
        "after training": after["val"],
    }
    rank_zero_only(show_scores)(rows)
    say(f"next: {command_line('export', **run_settings(run_dir))}")


def made(cfg: DictConfig, part: str, **options: object) -> object:
    """What a node describes; cfg keeps its references, for the record. Hydra (1.3) resolves in place what they name."""
    return instantiate(copy.deepcopy(cfg)[part], **options, _convert_="all")
