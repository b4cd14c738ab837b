"""The stages as a job of Ray Data, on this machine or on a cluster of machines.

    tasks     load 3 | load 4 | save 0 | load 5 | save 1 | ...      on every core of every machine
    actors        [  1  ][  2  ][  3  ] ...                         an engine each: one a GPU

Ray Data hands the groups from stage to stage through shared memory, and starts no more tasks than that holds: memory
does not grow with the number of images. A group is what `sequential` has for a batch, so files are the same bytes. A
task whose process is killed, or whose machine is lost, is done again: files are replaced as wholes, so that leaves no
trace. This process has the bar, the list of failures and the exit status. It touches no image and imports no torch.
"""

from __future__ import annotations

import math
import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from p2p.data.pairs import Pair
from p2p.pipelines.job import Job
from p2p.pipelines.outcome import Outcome
from p2p.pipelines.ray_stages import Group, Row, Translate, load, packed, save
from p2p.pipelines.workers import TraceOfWorker
from p2p.profiling.clock import Clock
from p2p.system import signals
from p2p.system.cores import available_cores
from p2p.system.gpus import gpu_addresses
from p2p.system.quiet import no_stderr

STORE_BYTES = 1 << 30  # of shared memory, for the frames between two stages
TASK_BYTES, TASK_IMAGES = 32 << 20, 256  # of what a task loads, at most, unless a batch is more
PATIENCE_S = 10.0  # until a cluster answers
TASKS = 4  # for each CPU, at least: all end at about the same time
SETTINGS = {  # environment variables of Ray's: it is quiet, and its processes count as much as this one
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def check(device: str, *, actors: int | None = None, ray_address: str | None = None) -> None:
    """Find what cannot be before anything starts or is written; for the arguments see `run`.

    Raises:
        ValueError: Ray is not installed, nobody answers at the address, or this machine has not what is asked for.
    """
    if find_spec("ray") is None:
        raise ValueError("pipeline=ray needs the package ray, which is not installed: pip install 'ray[data]'")
    if ":" in device:
        raise ValueError(f"device={device} is one GPU, and with pipeline=ray Ray chooses: use device=cuda")
    if ray_address is None:
        place(device, actors, {"CPU": here(), "GPU": len(gpu_addresses()), "node:here": 1})
    check_address(ray_address)


def here() -> int:
    """The CPUs of a cluster on this machine: one loads and saves."""
    return max(2, available_cores())


def run(
    pairs: list[Pair],
    *,
    job: Job,
    outcome: Outcome,
    clock: Clock,
    actors: int | None = None,
    ray_address: str | None = None,
) -> None:
    """Translate all pairs' inputs, `job.batch_size` at a time.

    Args:
        job: what is done to each; its device may be auto: GPUs, if the cluster has any.
        outcome: is told what becomes of the images.
        clock: is given what all have measured.
        actors: that have an engine; None: one for each GPU of the cluster, or without GPUs for each machine.
        ray_address: of a cluster that runs: "auto", "host:port" or "ray://host:port"; None starts one here, which
            ends with the run.

    Raises:
        ValueError: there is no such cluster, it is too small, or images are missing because Ray gave up.
        Exception: whatever a stage raised.
    """
    if not pairs:
        return
    with ExitStack() as stack:
        with clock("init"):
            resources = stack.enter_context(started(ray_address))
        device, actors = place(job.device, actors, resources)
        _run(pairs, job._replace(device=device), outcome, clock, actors=actors, cpus=int(resources["CPU"]))


def _run(pairs: list[Pair], job: Job, outcome: Outcome, clock: Clock, *, actors: int, cpus: int) -> None:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    batch_size = min(job.batch_size, len(pairs))
    folder, on_gpu = Path.cwd(), job.device == "cuda"
    groups = [
        packed([*enumerate(pairs[first : first + batch_size], start=first)])
        for first in range(0, len(pairs), batch_size)
    ]
    tasks = number_of_tasks(len(pairs), batch_size, image_bytes=math.prod(job.manifest.input_shape), cpus=cpus)
    options = {"files": job.files(), "folder": folder}
    engine = (job._replace(batch_size=batch_size), folder, max(1, available_cores() // actors), len(pairs))
    data = ray.data.from_items(groups, override_num_blocks=tasks).map(load, fn_kwargs=options, num_cpus=1)
    data = data.map(
        Translate,
        fn_constructor_args=engine,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=0 if on_gpu else 1,
        num_gpus=1 if on_gpu else 0,
    )
    data = data.map(save, fn_kwargs=options, num_cpus=1)
    done = np.zeros(len(pairs), bool)
    with clock("e2e", len(pairs)):
        try:
            for row in data.iter_rows():
                heed(row, pairs, outcome, clock, done)
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"Ray gave up, {_missing(pairs, done)}: {reason}") from error
    if not done.all():
        raise ValueError(f"Ray ended early, {_missing(pairs, done)}")


def heed(row: Row, pairs: list[Pair], outcome: Outcome, clock: Clock, done: np.ndarray) -> None:
    """Count the images of a group that is through, each once: Ray may do a task again."""
    group: Group = pickle.loads(row["group"])
    if group.broken is not None:
        raise group.broken.error from TraceOfWorker(group.broken.trace)
    clock.merge(group.spans)
    for number, stage, reason in group.failed:
        if not done[number]:
            outcome.fail(pairs[number], stage, reason)
            done[number] = True
    for image in group.images:
        if not done[image.number]:
            outcome.on_image()
            done[image.number] = True


def number_of_tasks(images: int, batch_size: int, *, image_bytes: int, cpus: int) -> int:
    """Into how many tasks whole groups are divided: enough for every CPU, and few enough to be worth a task."""
    together = min(TASK_IMAGES, TASK_BYTES // image_bytes, -(-images // (TASKS * cpus)))
    return -(-images // (max(1, together // batch_size) * batch_size))


def place(device: str, actors: int | None, resources: dict[str, float]) -> tuple[str, int]:
    """The device of the engines, and how many there are.

    Raises:
        ValueError: the cluster does not have what is asked for.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda" and not gpus:
        raise ValueError("device=cuda needs a GPU, and Ray has none: use device=cpu")
    if device == "cuda" and (actors or 1) > gpus:
        raise ValueError(f"pipeline.actors={actors} needs as many GPUs, and Ray has {gpus}: use fewer, or device=cpu")
    if actors is None:
        machines = sum(name.startswith("node:") and "internal_head" not in name for name in resources)
        actors = gpus if device == "cuda" else max(1, min(machines, cpus - 1))
    if device == "cpu" and actors >= cpus:
        raise ValueError(f"pipeline.actors={actors} leaves none of Ray's {cpus} CPUs to load and save: use fewer")
    return device, actors


@contextmanager
def started(address: str | None) -> Iterator[dict[str, float]]:
    """Connect to a cluster, or start one that ends with the block; yields what it has: CPU, GPU, node:..."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    import ray

    options: dict = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"num_cpus": here(), "include_dashboard": False}
        options |= {"object_store_memory": STORE_BYTES}
    if "P2P_TRUST" in os.environ:
        options["runtime_env"] = {"env_vars": {"P2P_TRUST": os.environ["P2P_TRUST"]}}
    try:
        # Ray's own answer to SIGTERM ends the process without a sentence; and it says which log level it was given.
        with signals.kept(), no_stderr():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if address == "auto":
            raise ValueError(
                "pipeline.ray_address=auto finds no cluster on this machine: start it by ray start --head, or leave it"
                " out"
            ) from error
        where = (
            "no cluster could be started here" if address is None else f"pipeline.ray_address={address} is no cluster"
        )
        raise ValueError(f"{where} ({reason})") from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def check_address(address: str | None) -> None:
    """Raise a ValueError if nobody answers there, which Ray would find out after a minute."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if address in (None, "auto"):
        return
    try:
        if not host or not port.isdecimal():
            raise ValueError("it has no port")
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"pipeline.ray_address={address} is no cluster ({error}): use auto, host:port or ray://host:port, or leave"
            " it out for a cluster on this machine"
        ) from error


def _missing(pairs: list[Pair], done: np.ndarray) -> str:
    missing = np.flatnonzero(~done)
    some = pairs[missing[0]].name if len(missing) else "none"
    return f"and {len(missing)} of {len(pairs)} images are missing, such as {some}; skip_existing=true goes on"
