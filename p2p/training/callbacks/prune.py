"""Ends a training that is a trial of a search, if it is not worth going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from p2p.config.search import PRUNED, storage_of
from p2p.system.plural import counted

if TYPE_CHECKING:
    import optuna


class Prune(Callback):
    """Reports the score of each epoch to the trial's study, and stops after an epoch when the pruner says so.

    The run then ends as any other: it is validated, and its checkpoints can be exported.

    Args:
        monitor: the score that the study is about.
        pruner: one of Optuna's.
        trial: where the study is, its name, and the trial's number; None where the training is no trial.
    """

    def __init__(self, *, monitor: str, pruner: optuna.pruners.BasePruner, trial: list | None = None):
        self._monitor, self._pruner, self._where = monitor, pruner, trial
        self._trial: optuna.Trial | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the trial, which the first of several processes talks to."""
        if self._where is None or not trainer.is_global_zero:
            return
        import optuna

        storage, name, number = self._where
        study = optuna.load_study(study_name=name, storage=storage_of(storage), pruner=self._pruner)
        if number < len(study.trials) and not study.trials[number].state.is_finished():
            self._trial = optuna.Trial(study, study.trials[number]._trial_id)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and stop all processes where the pruner says so."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        prune, epochs = False, trainer.current_epoch + 1
        if self._trial is not None:
            self._trial.report(float(trainer.callback_metrics[self._monitor]), step=epochs - 1)  # Optuna's count from 0
            prune = epochs < trainer.max_epochs and self._trial.should_prune()
        if trainer.strategy.reduce_boolean_decision(prune, all=False):
            trainer.should_stop = True
            if self._trial is not None:
                self._trial.set_user_attr(PRUNED, epochs)
                print(f"stopped after {counted(epochs, 'epoch')}: other trials had better scores by then")
