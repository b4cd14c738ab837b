"""The sequential pipeline: one batch after another. The other pipelines must write the same bytes."""

from __future__ import annotations

from p2p.data.pairs import Pair
from p2p.pipelines import strips
from p2p.pipelines.stages import Stages


def run(pairs: list[Pair], stages: Stages, *, batch_size: int) -> None:
    """Translate all pairs' inputs in order, `batch_size` at a time; nothing happens at the same time.

    The engine's warm-up comes before, and is not counted end to end.
    """
    if not pairs:
        return
    stages.warmup(batch_size, images=len(pairs))
    with stages.clock("e2e", len(pairs)):
        plan = stages.plan(pairs, batch_size=batch_size)
        for group in plan.whole():
            loaded = [image for pair in group if (image := stages.load(pair))]
            if not loaded:  # nothing of it could be read
                continue
            for image, frame_HWC in zip(loaded, stages.outputs(loaded, batch_size=batch_size), strict=True):
                stages.save(image.pair, frame_HWC, image.size)
        for pair in plan.by_rows():
            strips.translate(pair, stages, batch_size=batch_size)
