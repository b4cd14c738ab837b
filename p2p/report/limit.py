"""What limited a run: how busy each stage's workers were, and what to change."""

from __future__ import annotations

import os
from dataclasses import dataclass

from p2p.profiling.clock import WORK, Clock

# What to do about a stage that the others wait for.
ADVICE = {
    "decode": "more cores, or smaller files",
    "preprocess": "more cores, or inputs that already have the network's size",
    "generate": "larger batch_size, or export.py with backend=fastest",
    "postprocess": "larger batch_size",
    "encode": "codec.format=jpg encodes faster than png; or more cores",
    "write": "a faster disk for output=, or codec.format=jpg, whose files are smaller than png",
}
IDLE = 0.7  # where nothing is busier than this, no stage is the limit
SATURATED = 0.9  # of the cores


@dataclass
class Pool:
    """Workers and the stages that they share.

    Attributes:
        lanes: who works here.
        seconds: by stage, added up over the lanes.
        busy: share of the whole run, over all lanes, in [0, 1].
    """

    lanes: set[str]
    seconds: dict[str, float]
    busy: float

    @property
    def slowest(self) -> str:
        """The stage that these workers spend most of their time at."""
        return max(self.seconds, key=self.seconds.__getitem__)


def pools(clock: Clock) -> list[Pool]:
    """The stages that ran, grouped by who works at them: threads that decode and preprocess are one pool."""
    found: list[tuple[set[str], dict[str, float]]] = []
    for stage in WORK:
        if stage not in clock.seconds:
            continue
        lanes, seconds = set(clock.lanes.get(stage, (stage,))), {stage: clock.seconds[stage]}
        for other in [group for group in found if group[0] & lanes]:
            found.remove(other)
            lanes, seconds = lanes | other[0], other[1] | seconds
        found.append((lanes, seconds))
    wall = clock.seconds["e2e"]
    return [Pool(lanes, seconds, sum(seconds.values()) / (wall * len(lanes))) for lanes, seconds in found]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit(clock: Clock) -> tuple[str, str] | None:
    """The stage that limited the run and a sentence about it; None where nothing was translated."""
    if not clock.seconds.get("e2e") or not (groups := pools(clock)):
        return None
    most = max(groups, key=lambda group: group.busy)
    stage = most.slowest
    wall, count = clock.seconds["e2e"], len(most.lanes)
    if len(groups) == 1 and count == 1:
        share = clock.seconds[stage] / wall
        return stage, (
            f"one stage after another, {stage} takes {share:.0%} of the time:"
            f" +pipeline=overlap works at all of them at once; then {ADVICE[stage]}"
        )
    used = clock.cpu_seconds / (wall * cores())
    if used > SATURATED:
        stage = max((name for group in groups for name in group.seconds), key=clock.seconds.__getitem__)
        return stage, (
            f"the processor is the limit ({min(used, 1):.0%} of {cores()} cores, longest at {stage}):"
            f" more cores, or {ADVICE[stage].removeprefix('more cores, or ')}"
        )
    if most.busy < IDLE:
        return stage, (
            f"no stage is the limit ({stage} is the busiest, {_of(most)}): start-up and hand-over take the rest;"
            " more images, a larger batch_size or pipeline.slots"
        )
    return stage, f"{stage} is the limit ({_of(most)}): {ADVICE[stage]}"


def _of(pool: Pool) -> str:
    """ "8 workers 96% busy with write": how busy, and with what else."""
    others = [name for name in pool.seconds if name != pool.slowest]
    workers = "1 worker" if len(pool.lanes) == 1 else f"{len(pool.lanes)} workers"
    also = f" with {' and '.join(others)}" if others else ""
    return f"{workers} {min(pool.busy, 1):.0%} busy{also}"
