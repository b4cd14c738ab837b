"""The stages of a program on a device."""

from __future__ import annotations

import torch

from p2p.deploy import published
from p2p.deploy.engine import load_engine
from p2p.pipelines.job import Job
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock


def load_stages(job: Job, *, device: torch.device, clock: Clock) -> Stages:
    """Load the program, and what surrounds it.

    Raises:
        ValueError: it cannot be used here, is another one meanwhile, or does not take batches of that size.
    """
    if job.program.is_file():
        engine = published.load_engine(job.program, device=device)
    else:
        engine = load_engine(job.program, device=device, whole=job.manifest if job.whole else None)
    if engine.manifest != job.manifest:
        raise ValueError(f"{job.program} was replaced during this run: start again")
    engine.check_batch_size(job.batch_size)
    return Stages(
        engine=engine,
        transform=job.transform,
        codec=job.codec,
        output=job.output,
        clock=clock,
        size=job.size,
        tile_stats=job.tile_stats,
        fit=job.fit,
        restore_size=job.restore_size,
        keeps_alpha=job.keeps_alpha,
    )
