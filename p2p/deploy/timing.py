"""How long programs take for a batch, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from p2p.deploy.backend import Run

ROUNDS = 7
ROUND_SECONDS = 0.2  # of one program in one round, at least one batch


@torch.inference_mode()
def median_seconds(
    batches: dict[str, tuple[Run, torch.Tensor]],
    *,
    device: torch.device,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds that each function takes for its batch, the median of several rounds.

    In every round all have their turn, one after another, so that a clock that slows down slows all of them. The
    batches are in the device's memory; a turn repeats its function for 0.2 s and waits for the device once.
    """

    def turn(name: str, count: int) -> float:
        run, batch = batches[name]
        started = clock()
        for _ in range(count):
            run(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (clock() - started) / count

    counts = {}
    for name in batches:
        turn(name, 2)  # CUDA graphs are recorded, kernels chosen, memory mapped
        counts[name] = max(1, round(ROUND_SECONDS / max(turn(name, 1), 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(rounds):
        for name, count in counts.items():
            taken[name].append(turn(name, count))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}
