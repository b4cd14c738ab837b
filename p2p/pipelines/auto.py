"""One image after another for a few, all stages at the same time for many: chosen by what is known before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from p2p.data.pairs import Pair
    from p2p.pipelines.stages import Stages

FEW = 64  # images: to start two workers takes 0.25 s, about what they save on a hundred


def choose(images: int, *, batch_size: int) -> tuple[Literal["sequential", "overlap"], str]:
    """The pipeline that is faster for so many images, and why."""
    there = f"there are {images:,} images" if images > 1 else "there is 1 image"
    if images <= FEW:
        return "sequential", f"{there}, and overlap is faster from {FEW + 1} on"
    if images <= batch_size:
        return "sequential", f"all {images:,} images are in one batch, which overlaps with none"
    return "overlap", f"{there}, and it is faster from {FEW + 1} on"


def run(
    pairs: list[Pair], stages: Stages, *, batch_size: int, slots: int | None = None, workers: int | None = None
) -> None:
    """Translate all pairs' inputs by the pipeline that is faster for so many.

    Args:
        slots, workers: of `p2p.pipelines.overlap.run`, which either asks for.
    """
    from p2p.pipelines import overlap, sequential  # here: they import torch, and `choose` is asked before

    if slots is not None or workers is not None:
        return overlap.run(pairs, stages, batch_size=batch_size, slots=slots, workers=workers)
    name, why = choose(len(pairs), batch_size=batch_size)
    if pairs:
        print(f"pipeline: {name}, because {why}")
    (overlap if name == "overlap" else sequential).run(pairs, stages, batch_size=batch_size)
