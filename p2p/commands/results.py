"""What the commands return: to `p2p.train` and the like all of it, to Hydra's sweepers the score."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Trained(NamedTuple):
    """A training that came to its end.

    Attributes:
        folder: of the run, with its checkpoints; `p2p.load` takes it.
        scores: of the validation after training, of the weights that are exported by default: "val/L1", "val/PSNR", ...
        score: the one that is named by the setting monitor.
    """

    folder: Path
    scores: dict[str, float]
    score: float


class Exported(NamedTuple):
    """A program that came up to fp32.

    Attributes:
        folder: with the program and its manifest; `p2p.load` takes it.
        backend: that was chosen.
        score: PSNR against fp32 eager in dB, of the worst validation image.
    """

    folder: Path
    backend: str
    score: float


class Translated(NamedTuple):
    """Images that were all translated; where one cannot be, the command ends with a ValueError.

    Attributes:
        folder: of the outputs, which mirror the paths of the inputs.
        written: how many images.
        skipped: how many skip_existing found to be there.
        score: images per second from disk to disk; None where there was nothing to do.
    """

    folder: Path
    written: int
    skipped: int
    score: float | None
