"""Adapt a checkpoint to the run that continues from it."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from p2p.config.resume import is_in_place, record_of
from p2p.data.datamodule import PairedImages
from p2p.data.epoch_loader import order_of
from p2p.run.record import load_record
from p2p.system.plural import counted

say = rank_zero_only(print)


class Resume(Callback):
    """Changes a checkpoint before Lightning loads it, which takes it as it is.

    - The settings of today's optimizer and early stopping count, and not those that the checkpoint remembers. With
      `new_rates` the learning rates are those of today's schedule at the epoch that is reached, as if it had been
      followed from the start; else they go on as they are.
    - The best score so far counts where its checkpoint lies in this run's folder, wherever that was before.
    - A run that was stopped in the middle of an epoch goes on behind the last batch that made a step, and a validation
      that was not finished starts anew. It ends with the same bits as one that was not stopped (on a CPU, by one
      process); where that cannot be, a line says so.

    Args:
        in_place: whether the checkpoint is this run's own: no other run's best score counts.
        new_rates: whether the schedule or its learning rate is another than before.
        new_optimizer: whether the optimizer is another one, whose averages start anew.
        images, batch_size: of training, today: with others an epoch cannot be gone on with.
    """

    def __init__(self, *, in_place: bool, new_rates: bool, new_optimizer: bool, images: int, batch_size: int):
        self._in_place = in_place
        self._new_rates = new_rates
        self._new_optimizer = new_optimizer
        self._images = images
        self._batch_size = batch_size

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, dict]) -> None:
        """Change it: callbacks load their states next, loops and optimizers after that."""
        states = checkpoint["callbacks"]
        for callback in trainer.early_stopping_callbacks:
            if callback.state_key in states:
                states[callback.state_key]["patience"] = callback.patience
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.state_key in states:
                state = states.pop(callback.state_key)
                if self._in_place and (best := best_here(state, callback)) is not None:
                    states[callback.state_key] = best
        if trainer.state.fn == TrainerFn.FITTING:
            self.follow_settings(pl_module, checkpoint)
            order = order_of(images=self._images, batch_size=self._batch_size, processes=trainer.world_size)
            go_on_within_epoch(checkpoint["loops"]["fit_loop"], order)

    def follow_settings(self, model: LightningModule, checkpoint: dict) -> None:
        """Make its optimizers and schedulers those of a model; averages stay, and so do rates without `new_rates`."""
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        optimizers, schedulers = model.configure_optimizers()
        keeps = what_it_keeps(model)
        for i, (optimizer, named) in enumerate(zip(optimizers, schedulers, strict=True)):
            scheduler = named["scheduler"]
            saved = checkpoint["optimizer_states"][i]
            of_a_weight = next(iter(saved["state"].values()), None)  # what is frozen has none
            if of_a_weight is not None and (self._new_optimizer or {*of_a_weight} != keeps):
                saved["state"] = {}
                if i == 0:
                    say(f"the averages of {type(optimizer).__name__} start again, because the checkpoint has others")
            if self._new_rates:
                if not isinstance(scheduler, ReduceLROnPlateau):
                    for _ in range(epochs):
                        scheduler.step()
                checkpoint["lr_schedulers"][i] = scheduler.state_dict()
            kept = ("params",) if self._new_rates else ("params", "lr", "initial_lr")
            for theirs, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True):
                theirs.update({key: value for key, value in ours.items() if key not in kept})
        if self._new_rates:
            say(f"learning rate of epoch {epochs + 1}: {optimizers[0].param_groups[0]['lr']:g}")


def resume_callback(cfg: DictConfig, checkpoint: Path, data: PairedImages) -> Resume:
    """The one for a run with the settings cfg, of `p2p.config.resume.resumed_settings`."""
    path = record_of(checkpoint, Path(cfg.run_dir))
    before = None if path is None else load_record(path)
    return Resume(
        in_place=is_in_place(cfg, checkpoint),
        new_rates=before is None
        or (before.scheduler, before.optimizer.get("lr")) != (cfg.scheduler, cfg.optimizer.get("lr")),
        new_optimizer=before is not None and before.optimizer._target_ != cfg.optimizer._target_,
        images=len(data.dataset("train")),
        batch_size=cfg.data.batch_size,
    )


def what_it_keeps(model: LightningModule) -> set[str]:
    """Names of the averages that the model's optimizer keeps of each weight: amsgrad=true keeps one more, say."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    optimizer = model.make_optimizer([weight])
    optimizer.step()
    return {*optimizer.state[weight]}


def best_here(state: dict, callback: ModelCheckpoint) -> dict | None:
    """Its state with the best checkpoints that lie in the callback's folder; None without any.

    Lightning drops all of it when the path of the folder has changed, and replaces the best by the next epoch.
    """
    if callback.monitor is None:
        return None
    here = {str(Path(callback.dirpath, Path(path).name)): score for path, score in state["best_k_models"].items()}
    here = {path: score for path, score in here.items() if Path(path).is_file()}
    ranked = sorted(here, key=lambda path: here[path].item(), reverse=callback.mode == "max")
    if callback.save_top_k >= 0:
        ranked = ranked[: callback.save_top_k]
    if not ranked:
        return None
    return state | {
        "dirpath": callback.dirpath,
        "best_k_models": {path: here[path] for path in ranked},
        "best_model_path": ranked[0],
        "best_model_score": here[ranked[0]],
        "kth_best_model_path": ranked[-1],
        "kth_value": here[ranked[-1]],
        "last_model_path": "",
    }


def go_on_within_epoch(fit_loop: dict, order: dict[str, int]) -> None:
    """Set Lightning's counts (2.6) so that an epoch goes on exactly where it was stopped.

    As they are saved, it takes a batch for trained that was not, numbers the next one in the logs too high by one, and
    leaves a validation out that was stopped.
    """
    epoch = fit_loop["epoch_progress"]["current"]
    if epoch["ready"] == epoch["processed"]:
        return  # it was stopped between two epochs
    number, progress = epoch["ready"], fit_loop["epoch_loop.batch_progress"]
    current, total = progress["current"], progress["total"]
    trained = current["processed"]
    loaders = fit_loop["state_dict"].get("combined_loader", [{}])
    if progress["is_last_batch"] and current["ready"] == trained:  # the validation was stopped: it starts anew
        for counts in (current, total):
            counts.update(dict.fromkeys(counts, counts["processed"]))
        loaders[0]["batches"] = trained
        for counts in fit_loop["epoch_loop.val_loop.batch_progress"].values():
            if isinstance(counts, dict):
                counts.update(ready=1, started=1, processed=0, completed=0)
        return
    changed = [key for key in order if loaders[0].get(key) != order[key]]
    if changed:
        what = f"{' and '.join(changed)} changed" if "seed" in loaders[0] else "the order of its images was not saved"
        after = counted(trained, "batch", "batches")
        say(f"epoch {number} was stopped after {after} and is trained from its start again: {what}")
        fit_loop["state_dict"].pop("combined_loader", None)
        trained = 0
    elif current["started"] > trained:
        say(f"epoch {number} was stopped during a step, which is repeated: the result differs slightly")
    elif order["processes"] > 1:
        say(f"epoch {number} was stopped in its middle: all processes but the first draw new random dropout")
    loaders[0]["batches"] = trained
    for counts, done in ((current, trained), (total, total["processed"] - current["processed"] + trained)):
        counts.update(ready=done + 1, started=done, processed=done, completed=done)
    progress["is_last_batch"] = False
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # Lightning adds it again
