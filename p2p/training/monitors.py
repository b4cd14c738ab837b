"""Check monitors: that the score exists, and that its mode says whether higher or lower is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torchmetrics import Metric

from p2p.config.shown import nearest


class Monitor(NamedTuple):
    """A score that something goes by, with the names of the two settings that say so.

    Attributes:
        setting, score: such as callbacks.best_k.monitor and val/PSNR.
        mode_setting, mode: such as callbacks.best_k.mode and max; None where whatever it is does not ask.
    """

    setting: str
    score: str
    mode_setting: str
    mode: str | None


def check_monitors(monitors: Iterable[Monitor], scores: Mapping[str, Metric], *, others: Iterable[str] | None) -> None:
    """Refuse what would be found out after an epoch, or would take the worst epoch for the best.

    Args:
        monitors: all that there are; the first is the run's own, which goes by validation alone.
        scores: of validation, by the names that they are logged by.
        others: what else is logged; None where that cannot be known.

    Raises:
        ValueError: the first of the monitors with which something is wrong.
    """
    for index, (setting, score, mode_setting, mode) in enumerate(monitors):
        if score in scores:
            higher = scores[score].higher_is_better
            better = {True: "max", False: "min", None: mode}[higher]
            if mode not in (None, better):
                raise ValueError(
                    f"{mode_setting}={mode} takes the worst {score} for the best: use {mode_setting}={better}"
                )
        elif index == 0 or (others is not None and score not in others):
            hint = nearest(score, [*scores, *((others or ()) if index else ())])
            raise ValueError(
                f"{setting}={score} is not a validation score{hint}: use {' or '.join(scores)}, or add it to metrics"
            )
