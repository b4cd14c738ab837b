"""A score that nothing logs, or its worse end, is refused before training and not after an epoch."""

import re

import pytest
from hydra.utils import instantiate

import p2p
from p2p.commands.train import logged_by, monitors_of
from p2p.training.monitors import check_monitors


def check(*overrides):
    cfg = p2p.compose(overrides)
    scores = {f"val/{name}": metric for name, metric in instantiate(cfg.metrics).items()}
    check_monitors(monitors_of(cfg), scores, others=logged_by(cfg))


STOP = "callbacks=early_stopping callbacks.early_stopping.monitor"
REFUSED = {
    "monitor=val/L2": "monitor=val/L2 is not a validation score, did you mean val/L1: use val/L1 or val",
    "monitor=train/G_l1": "monitor=train/G_l1 is not a validation score",
    "monitor=val/PSNR": "monitor_mode=min takes the worst val/PSNR for the best: use monitor_mode=max",
    "monitor_mode=max": "monitor_mode=max takes the worst val/L1 for the best: use monitor_mode=min",
    "monitor_mode=maxx": "monitor_mode=maxx is not known, did you mean max: use min or max",
    "scheduler=plateau scheduler.mode=max": "scheduler.mode=max takes the worst val/L1 for the best",
    "scheduler=plateau scheduler.mode=least": "scheduler.mode=least is not known: use min or max",
    "callbacks=best_k metrics=[l1]": "callbacks.best_k.monitor=val/PSNR is not a validation score: use val/L1, or",
    "callbacks=best_k callbacks.best_k.mode=min": "callbacks.best_k.mode=min takes the worst val/PSNR for the best",
    "callbacks=best_k callbacks.best_k.mode=mx": "callbacks.best_k.mode=mx is not known, did you mean max",
    f"{STOP}=val/PSN": "callbacks.early_stopping.monitor=val/PSN is not a validation score, did you mean val/PSNR: use",
    f"{STOP}=train/G_l2": "callbacks.early_stopping.monitor=train/G_l2 is not a validation score",
    f"{STOP}=val/FID": "callbacks.early_stopping.monitor=val/FID is not a validation score",
}
TAKEN = [
    "",
    "monitor=val/PSNR monitor_mode=max scheduler=plateau callbacks=[best_k,early_stopping]",
    f"{STOP}=train/G_l1",
    "callbacks=[early_stopping,perceptual] callbacks.early_stopping.monitor=val/FID",
    f"{STOP}=mine +callbacks.mine._target_=mine.Logs",
    "+metrics.mine._target_=torchmetrics.MeanMetric monitor=val/mine monitor_mode=max",
]


@pytest.mark.parametrize("typed", REFUSED)
def test_what_cannot_tell_the_best_is_refused(typed):
    with pytest.raises(ValueError, match=f"^{re.escape(REFUSED[typed])}"):
        check(*typed.split())


@pytest.mark.parametrize("typed", TAKEN)
def test_what_something_logs_is_taken(typed):
    check(*typed.split())
