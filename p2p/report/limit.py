"""Find what limited a run: how busy the workers of each stage were, and what to change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from p2p.profiling.clock import WORK, Clock
from p2p.system.cores import available_cores
from p2p.system.plural import counted

# What to do about a stage that the others wait for; about one that is at its best already, `advice` has other words.
ADVICE = {
    "decode": "more cores, or smaller files",
    "preprocess": "more cores, or inputs that already have the network's size",
    "generate": "a larger batch_size, or an export with backend=fastest",
    "encode": "more cores",
    "write": "a faster disk for output=",
}
# What else would help, by codec.format.
MORE_ADVICE = {
    "encode": {
        "png": ", or codec.png_level=0, which does not compress, or codec.format=jpg, which encodes faster than png",
        "webp": ", or codec.format=jpg, which encodes faster than webp",
        "jpg": ", or codec.subsampling=420, or a lower codec.quality",
    },
    "write": {
        "png": ", or codec.format=jpg, whose files are smaller than png",
    },
}
DECODER_ADVICE = "codec=fast, which decodes on all cores, or a larger batch_size"  # where a GPU decodes
NOTHING_LEFT = "a faster machine"
OVERLAP = "pipeline=overlap"
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
    """The lanes that worked, grouped by their names without number and device: "worker 0" and "worker 1 of cuda:1"."""
    found: dict[str, Pool] = {}
    for stage in (stage for stage in WORK if stage in clock.seconds):
        for lane, seconds in clock.lanes.get(stage, {stage: clock.seconds[stage]}).items():
            kind = lane.partition(" of ")[0].rstrip("0123456789 ")
            pool = found.setdefault(kind, Pool(set(), {}, 0.0))
            pool.lanes.add(lane)
            pool.seconds[stage] = pool.seconds.get(stage, 0.0) + seconds
    for pool in found.values():
        pool.busy = sum(pool.seconds.values()) / (clock.seconds["e2e"] * len(pool.lanes))
    return list(found.values())


def advice(stage: str, clock: Clock, *, format: str | None, done: Collection[str]) -> str:
    """What to do about a stage, where files of that format are written, but for what was done."""
    text = ADVICE[stage] + MORE_ADVICE.get(stage, {}).get(format or "", "")
    if stage == "decode" and any(lane.startswith("decoder") for lane in clock.lanes.get(stage, ())):
        text = DECODER_ADVICE
    choices = text.split(", or ")
    return ", or ".join(each for each in choices if not any(setting in each for setting in done)) or NOTHING_LEFT


def limit(clock: Clock, *, format: str | None = None, done: Collection[str] = ()) -> tuple[str, str] | None:
    """The stage that limited the run and a sentence about it; None where nothing was translated.

    Args:
        format: codec.format of the run, so that it is not recommended.
        done: other settings that need no recommendation, such as "batch_size", because all is in one batch.
    """
    if not clock.seconds.get("e2e") or not (groups := pools(clock)):
        return None
    what_to_do = partial(advice, clock=clock, format=format, done=done)
    most = max(groups, key=lambda group: group.busy)
    stage = most.slowest
    wall, count = clock.seconds["e2e"], len(most.lanes)
    if len(groups) == 1 and count == 1:
        share = clock.seconds[stage] / wall
        at_once = "" if OVERLAP in done else f"{OVERLAP}, which runs them at the same time; then "
        return stage, (
            f"stages ran one after another, and {stage} took {share:.0%} of the time;"
            f" what helps: {at_once}{what_to_do(stage)}"
        )
    used = clock.cpu_seconds / (wall * available_cores())
    if used > SATURATED:
        stage = max((name for group in groups for name in group.seconds), key=clock.seconds.__getitem__)
        return stage, (
            f"the processor limits the run ({min(used, 1):.0%} of {counted(available_cores(), 'core')}, most of it for"
            f" {stage}); what helps: more cores, or {what_to_do(stage).removeprefix('more cores, or ')}"
        )
    if most.busy < IDLE:
        larger = " or ".join(each for each in ("a larger batch_size", "pipeline.slots") if each.split()[-1] not in done)
        return stage, (
            f"no stage limits the run ({stage} is the busiest, {_of(most)}): start-up and waiting between stages take"
            f" the rest; what helps: more images{larger and f', {larger}'}"
        )
    return stage, f"{stage} limits the run ({_of(most)}); what helps: {what_to_do(stage)}"


def _of(pool: Pool) -> str:
    """ "8 workers 96% busy with write": how busy, and with what else, if it counts."""
    total = sum(pool.seconds.values())
    others = [name for name, seconds in pool.seconds.items() if name != pool.slowest and seconds > 0.02 * total]
    also = f" with {' and '.join(others)}" if others else ""
    return f"{counted(len(pool.lanes), 'worker')} {min(pool.busy, 1):.0%} busy{also}"
