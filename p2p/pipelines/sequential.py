"""One batch after another: the oracle that the other pipelines are compared with, byte for byte."""

from __future__ import annotations

from p2p.data.pairs import Pair
from p2p.pipelines.stages import Stages


def run(pairs: list[Pair], stages: Stages, *, batch_size: int) -> None:
    """Translate all pairs' inputs in order, `batch_size` at a time; nothing happens at the same time.

    The engine's warm-up comes before, and is not counted end to end.
    """
    if not pairs:
        return
    stages.warmup(batch_size, images=len(pairs))
    with stages.clock("e2e", len(pairs)):
        for start in range(0, len(pairs), batch_size):
            loaded = {pair: stages.load(pair) for pair in pairs[start : start + batch_size]}
            batch = stages.collate(list(loaded.values()))
            if batch is None:  # nothing of it could be read
                continue
            frames_NHWC = stages.translate(batch.input_NCHW)
            readable = [pair for pair, sample in loaded.items() if sample is not None]
            for pair, frame_HWC, size in zip(readable, frames_NHWC, batch.sizes, strict=True):
                stages.save(pair, frame_HWC, size)
