"""Choose between sequential and overlap: whichever should finish first, by the number and size of the files.

Overlap saves the time in which images are loaded and saved, behind the engine's, and costs the start of its workers.
Measured on one core, with codec=fast and 256 pixels: loading and saving takes 1.5 ms for an image of 25 KB, and 140 ms
for a photo of 12 megapixels (JPEG of 2.3 MB; WebP takes longer for its bytes, PNG less).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from p2p.pipelines.workers import default_workers
from p2p.system.cores import available_cores
from p2p.system.plural import counted
from p2p.system.urls import is_url

if TYPE_CHECKING:
    from p2p.data.pairs import Pair
    from p2p.pipelines.stages import Stages

OVERLAPS = ("p2p.pipelines.auto.run", "p2p.pipelines.overlap.run")  # that may overlap
START_S = 0.25  # until workers are ready, of which there may be one for each core
IMAGE_S, BYTES_PER_S = 0.001, 25e6  # of loading and saving one after another


def choose(pairs: list[Pair], *, batch_size: int) -> tuple[Literal["sequential", "overlap"], str]:
    """The pipeline that is sooner done, and why."""
    if pairs and is_url(pairs[0].input.path):
        return "overlap", "a store takes longer to answer than its workers take to start"
    there, take = counted(len(pairs), "image"), "takes" if len(pairs) == 1 else "take"
    seconds = len(pairs) * IMAGE_S
    if seconds <= 2 * START_S:  # else it is clear without a look at them
        size = 0
        for pair in pairs:
            with suppress(OSError):  # whoever reads it will say so
                size += pair.input.path.stat().st_size
        there += f" ({size / 1e6:.1f} MB)" if size >= 1e6 else f" ({size / 1e3:.0f} kB)"
        seconds += size / BYTES_PER_S
    if len(pairs) <= batch_size:  # there is no other batch behind which to load or to save, only other cores
        seconds *= 1 - 1 / available_cores()
    if seconds > START_S:
        return "overlap", f"{there} {take} longer to load and save than its workers take to start"
    return "sequential", f"{there} {take} no longer to load and save than the workers of overlap take to start"


def workers_ahead(target: str, pairs: list[Pair], *, batch_size: int, workers: int | None, slots: int | None) -> int:
    """How many workers will be wanted by the pipeline of this `_target_`, as far as that is known before any work."""
    if target == "p2p.pipelines.auto.run" and workers is None and slots is None:
        if choose(pairs, batch_size=batch_size)[0] == "sequential":
            return 0
    elif target not in OVERLAPS:
        return 0
    wanted = default_workers(len(pairs), batch_size=batch_size) if workers is None else workers
    return min(wanted, available_cores())


def run(
    pairs: list[Pair], stages: Stages, *, batch_size: int, slots: int | None = None, workers: int | None = None
) -> None:
    """Translate all pairs' inputs by the pipeline that is sooner done.

    Args:
        slots, workers: of `p2p.pipelines.overlap.run`, which either asks for.
    """
    from p2p.pipelines import overlap, sequential  # here: they import torch, and `choose` is asked before

    if slots is not None or workers is not None:
        return overlap.run(pairs, stages, batch_size=batch_size, slots=slots, workers=workers)
    name, why = choose(pairs, batch_size=batch_size)
    if pairs:
        print(f"pipeline: {name}, because {why}")
    (overlap if name == "overlap" else sequential).run(pairs, stages, batch_size=batch_size)
