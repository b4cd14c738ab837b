"""The ranges of the numbers in conf/. What depends on other settings is checked by the class that knows them.

Not structured configs of Hydra: these know types but no ranges, would repeat the signature of every `_target_`, also a
user's own, and say "Value 'abc' of type 'str' could not be converted to Float" where p2p.config.settings names a value
that would do.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from p2p.system.cores import available_cores


class Range(NamedTuple):
    """What a number may be: `least` and `most` are allowed themselves, `above` and `below` are not."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether the number is in it; NaN is in none."""
        return self.least <= value <= self.most and self.above < value < self.below

    def words(self) -> str:
        """For "use ...": "1 or more", "0 to 1", "0 or more and less than 1"."""
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"{self.least} to {self.most}"
        bounds = {f"{self.least} or more": self.least, f"{self.most} or less": self.most}
        bounds |= {f"more than {self.above}": self.above, f"less than {self.below}": self.below}
        return " and ".join(words for words, bound in bounds.items() if math.isfinite(bound))


COUNT, SIZE, SHARE = Range(1), Range(1, 8192), Range(0, 1)
PART, POSITIVE, NOT_NEGATIVE = Range(0, below=1), Range(above=0), Range(0)
PROCESSES = Range(0, max(128, 4 * (os.cpu_count() or 1)))  # more of them can end a machine

RANGES = {  # patterns of paths; null is what a setting's type allows or not
    "seed": Range(0, 2**32 - 1),  # what NumPy takes
    "epochs": COUNT,
    "*batch_size": COUNT,
    "*image_size": SIZE,  # an image of this side has a first feature map of 4 GB; the networks know the smallest
    "images": COUNT,
    "shard_size": COUNT,
    "min_size": Range(1, 2**16),
    "opt_size": Range(1, 2**16),
    "max_size": Range(1, 2**16),
    "gallery": Range(0, 10_000),  # all of them are in one page
    "*_channels": Range(1, 4096),
    "data.labels": Range(2, 1024),
    "data.percentiles": Range(0, 100),
    "*.workers": PROCESSES,
    "pipeline.slots": COUNT,
    "pipeline.actors": COUNT,
    "pipeline.workers": Range(0, max(64, 4 * available_cores())),  # as the pipeline itself has it
    "transform.load_size": Range(1, 2 * 8192),
    "transform.multiple": SIZE,
    "*.width": Range(1, 4096),
    "generator.depth": Range(1, 13),
    "generator.*blocks": Range(1, 1024),
    "generator.downsamplings": Range(1, 9),
    "generator.dropout": PART,
    "generator.resize_last": Range(0, 13),
    "discriminator.layers": Range(1, 13),
    "discriminator.scales": Range(1, 8),
    "adversarial.weight": NOT_NEGATIVE,
    "adversarial.smoothing": PART,
    "optimizer.lr": NOT_NEGATIVE,
    "optimizer.betas": PART,
    "optimizer.eps": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": PART,
    "scheduler.*_fraction": SHARE,
    "scheduler.*_epochs": NOT_NEGATIVE,
    "scheduler.epochs": COUNT,
    "scheduler.step_size": COUNT,
    "scheduler.gamma": POSITIVE,
    "scheduler.factor": Range(above=0, most=1),
    "scheduler.patience": NOT_NEGATIVE,
    "scheduler.threshold": NOT_NEGATIVE,
    "model.lambda_l1": NOT_NEGATIVE,
    "losses.*.weight": NOT_NEGATIVE,
    "model.init_gain": POSITIVE,
    "model.accumulate": COUNT,
    "model.clip_norm": POSITIVE,
    "trainer.max_epochs": COUNT,
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.log_every_n_steps": NOT_NEGATIVE,
    "trainer.limit_train_batches": POSITIVE,
    "callbacks.ema.decay": PART,
    "callbacks.*.every_n_*": COUNT,
    "callbacks.freeze.epochs": NOT_NEGATIVE,
    "callbacks.samples.count": Range(0, 256),  # as many are kept on the GPU, and all are in one picture
    "callbacks.progress.refresh_s": NOT_NEGATIVE,
    "callbacks.*.patience": NOT_NEGATIVE,
    "callbacks.*.save_top_k": Range(-1),
    "backend.*_batch": COUNT,
    "profile.batches": COUNT,
    "port": Range(0, 65535),
    "max_wait_ms": Range(0, 60_000),
    "timeout_s": Range(above=0, most=3600),
    "max_bytes": COUNT,
    "max_pixels*": COUNT,
    "max_batch": COUNT,
    "queue": COUNT,
}


def ranges_of(path: str) -> Iterator[Range]:
    """Those that a setting has to be in."""
    return (range_ for pattern, range_ in RANGES.items() if fnmatchcase(path, pattern))
