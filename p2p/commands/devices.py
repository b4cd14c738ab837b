"""What translates for `infer.py`: a pipeline in this process, or one in another process for each of several GPUs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig

from p2p.data.pairs import Pair
from p2p.pipelines import several
from p2p.pipelines.auto import OVERLAPS, choose, workers_ahead
from p2p.pipelines.device_processes import started
from p2p.pipelines.job import Job
from p2p.pipelines.outcome import Outcome
from p2p.profiling.clock import Clock
from p2p.system import signals
from p2p.system.device import pick_device
from p2p.system.imports import beside, lasting

if TYPE_CHECKING:
    from p2p.pipelines.stages import Pipeline, Stages

Work = Callable[[list[Pair]], None]
AUTO, RAY = "p2p.pipelines.auto.run", "p2p.pipelines.ray.run"


def devices_for(cfg: DictConfig, devices: list[str], todo: list[Pair]) -> list[str]:
    """Those of the devices that are worth it: one where pipeline=auto takes the images one by one.

    Raises:
        ValueError: there are several, and the pipeline is of one.
    """
    if len(devices) == 1:
        return devices
    target = cfg.pipeline._target_
    if target == RAY:
        raise ValueError(f"devices={len(devices)} is not of pipeline=ray: use pipeline.actors={len(devices)}")
    if target not in OVERLAPS:
        name = target.removeprefix("p2p.pipelines.").removesuffix(".run")
        raise ValueError(
            f"devices={len(devices)} needs pipeline=overlap, and {name} works on one device: use pipeline=overlap, or"
            " devices=1"
        )
    if cfg.pipeline.workers == 0:
        raise ValueError("pipeline.workers=0 is one image after another, on one device: leave it out, or use devices=1")
    batch_size = max(1, cfg.batch_size)
    if target == AUTO and cfg.pipeline.workers is None and cfg.pipeline.slots is None:
        name, why = choose(todo, batch_size=batch_size)
        if name == "sequential":  # which says so itself
            return devices[:1]
        print(f"pipeline: overlap on {len(devices)} devices, because {why}")
    at_once = batch_size if cfg.size == "model" else 1  # a single large image may be many tiles
    return devices[: max(1, -(-len(todo) // at_once))]


def on_one(job: Job, pipeline: DictConfig, todo: list[Pair], *, clock: Clock) -> tuple[Stages, Work]:
    """The stages on job.device, and the pipeline that arranges them."""
    with signals.starting(), lasting(), beside(job.manifest.program_is_whole, job.program) as whole:
        from p2p.pipelines.load import load_stages

        run: Pipeline = instantiate(pipeline)
    stages = load_stages(job._replace(whole=whole()), device=pick_device(job.device), clock=clock)
    return stages, partial(run, stages=stages, batch_size=min(job.batch_size, max(1, len(todo))))


def on_several(
    job: Job, devices: list[str], todo: list[Pair], *, clock: Clock, draws: bool, stack: ExitStack
) -> tuple[Outcome, Work]:
    """What is noted here of the processes that have the stages, and what has them work; `stack` ends them."""
    options = {"images": len(todo), "batch_size": job.batch_size, "workers": job.workers}
    processes = stack.enter_context(started(devices, **options))
    with signals.starting(), lasting(), beside(job.manifest.program_is_whole, job.program) as whole:
        if draws:  # while the processes import torch, too
            import p2p.report.gallery  # noqa: F401
    outcome, job = Outcome(), job._replace(whole=whole())
    return outcome, partial(several.run, devices=processes, job=job, outcome=outcome, clock=clock)


def on_cluster(job: Job, pipeline: DictConfig, *, clock: Clock) -> tuple[Outcome, Work]:
    """What is noted here of the processes of Ray that have the stages, and what has them work."""
    from p2p.pipelines import ray  # here: other pipelines need none of it

    if job.size != "model":
        raise ValueError(f"pipeline=ray needs size=model: use that, or another pipeline with size={job.size}")
    ray.check(job.device, actors=pipeline.actors, ray_address=pipeline.ray_address)
    outcome, job = Outcome(), job._replace(whole=job.manifest.program_is_whole(job.program))
    return outcome, partial(instantiate(pipeline), job=job, outcome=outcome, clock=clock)


def workers_wanted(pipeline: DictConfig, pairs: list[Pair], *, batch_size: int) -> int:
    """How many processes a pipeline will ask for, if it is one of ours that has any."""
    options = {name: pipeline.get(name) for name in ("workers", "slots")}
    return workers_ahead(pipeline._target_, pairs, batch_size=max(1, batch_size), **options)
