"""Translate images with an exported generator: what `infer.py` does, in order.

All that concerns files is found and checked before torch is imported, which `p2p.pipelines.stages` and the engine do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from p2p.commands.devices import RAY, Work, on_cluster, on_one, on_several, workers_wanted
from p2p.commands.infer_plan import Plan, make_plan
from p2p.commands.results import Translated
from p2p.config.cli import of_job, some_of
from p2p.config.shown import as_typed, shown
from p2p.data.pairs import Pair
from p2p.data.transforms.letterbox import Letterbox
from p2p.deploy.manifest import Manifest
from p2p.pipelines.auto import OVERLAPS
from p2p.pipelines.job import Job
from p2p.pipelines.outcome import Outcome, progress_bar
from p2p.pipelines.outputs import add_to_history, blocked, sweep
from p2p.pipelines.packer import packing
from p2p.pipelines.processes import early
from p2p.profiling.clock import Clock
from p2p.report.failures import listed
from p2p.report.limit import OVERLAP
from p2p.report.tables import show_stages
from p2p.run.leaves import leaves
from p2p.system.folders import check_output
from p2p.system.memory import keep_freed_memory
from p2p.system.plural import counted

FAILURES = "failures.csv"


def main(cfg: DictConfig) -> Translated:
    """Do it, under a profiler if cfg.profile asks for one."""
    clock = Clock()
    keep_freed_memory()
    with (instantiate(cfg.profile) or nullcontext)(clock), early() as start_workers:
        return translate(cfg, clock, start_workers)


def translate(cfg: DictConfig, clock: Clock, start_workers: Callable[[int], None]) -> Translated:
    """Translate cfg.input into cfg.output, print how long each stage took, and draw a gallery."""
    with ExitStack() as stack:
        with clock("init"):
            plan = make_plan(cfg, stack=stack, each_span=clock.spans is not None)
            outcome, work = start(cfg, plan, clock, start_workers, stack=stack)
            check_output(plan.folder)
            sweep(plan.folder, plan.outputs)
        outcome.on_failure = stack.enter_context(listed(plan.folder / FAILURES))
        add_to_history(plan.folder, plan.settings)
        try:
            run(plan, outcome, work)
            if len(plan.devices) > 1:  # of which one may have been killed while it wrote
                sweep(plan.folder, plan.outputs)
        except BaseException:
            sweep(plan.folder, plan.outputs)
            if outcome.failures:
                some = counted(len(outcome.failures), "image")
                print(f"{some} had failed until then, see {shown(str(plan.folder / FAILURES))}")
            raise
        finally:
            done = settings_done(cfg, plan.job.manifest, images=len(plan.todo))
            show_stages(clock, format=plan.job.codec.suffix.removeprefix("."), done=done)
    failed = len(outcome.failures)
    written, skipped = len(plan.todo) - failed, len(plan.pairs) - len(plan.todo)
    print(f"{counted(written, 'image')} written to {shown(cfg.output)}, {failed} failed, {skipped} skipped")
    if plan.packs:
        print("there is no page of results, because the outputs are in shards")
    else:
        there = [pair for pair in plan.pairs if pair.name not in outcome.failures]
        facts = facts_of(cfg, plan.job.manifest, clock)
        run_dir = Path(of_job(cfg.run_dir))
        draw_gallery(there, plan.job, run_dir, count=cfg.gallery, title=f"p2p: {cfg.name}", facts=facts)
    if failed:
        reasons, of = some_of(list(outcome.failures.values())), counted(len(plan.todo), "image")
        raise ValueError(f"{failed} of {of} failed: {reasons}; {plan.folder / FAILURES} has them all")
    seconds = clock.seconds.get("e2e")
    speed = clock.images["e2e"] / seconds if seconds else None
    return Translated(plan.folder, written=written, skipped=skipped, score=speed)


def start(
    cfg: DictConfig, plan: Plan, clock: Clock, start_workers: Callable[[int], None], *, stack: ExitStack
) -> tuple[Outcome, Work]:
    """Load the program, here or in other processes: what becomes of the images, and what translates them."""
    if cfg.pipeline._target_ == RAY:
        return on_cluster(plan.job, cfg.pipeline, clock=clock)
    if len(plan.devices) > 1:
        return on_several(plan.job, plan.devices, plan.todo, clock=clock, draws=cfg.gallery > 0, stack=stack)
    start_workers(workers_wanted(cfg.pipeline, plan.todo, batch_size=cfg.batch_size))
    return on_one(plan.job, cfg.pipeline, plan.todo, clock=clock)


def run(plan: Plan, outcome: Outcome, work: Work) -> None:
    """Translate all that is to do, behind a progress bar, and pack it if that is asked for."""
    job, todo, files = plan.job, plan.todo, plan.outputs
    with ExitStack() as stack:
        outcome.on_image = stack.enter_context(progress_bar(len(todo))).update
        if plan.packs:
            shards = {pair.name: shard for pair, shard in zip(plan.pairs, plan.outputs, strict=True)}
            files = [job.path(pair.name) for pair in todo]
            stack.enter_context(packing(todo, shards, job.path, outcome))
        work(fail_blocked(todo, files, job, outcome))


def settings_done(cfg: DictConfig, manifest: Manifest, *, images: int) -> set[str]:
    """What need not be recommended after a run, because it could do no more."""
    # Built already, or one of two backends that tell their norms.
    kept = manifest.program.considered is not None or cfg.weights is not None or cfg.tile_stats == "image"
    return {
        *(["batch_size", "pipeline.slots"] if cfg.batch_size >= images else []),
        *(["backend=fastest"] if kept else []),
        *([OVERLAP] if cfg.pipeline._target_ in OVERLAPS else []),
        *(["pipeline.slots"] if cfg.pipeline._target_ == RAY else []),
        *(["codec.subsampling"] if cfg.codec.get("subsampling") == 420 else []),
        *(["codec.png_level", "encodes faster than png"] if cfg.codec.get("png_level") == 0 else []),
    }


def fail_blocked(pairs: list[Pair], outputs: list[Path], job: Job, outcome: Outcome) -> list[Pair]:
    """Those that can be written; the others fail at once, so that it does not matter which comes first."""
    blocking = blocked(outputs)
    if not blocking:
        return pairs
    for pair in pairs:
        path = job.path(pair.name)
        if path.parent in blocking:
            outcome.fail(pair, "write", f"cannot write {path}: {blocking[path.parent]} is another image's output")
    return [pair for pair in pairs if job.path(pair.name).parent not in blocking]


def facts_of(cfg: DictConfig, manifest: Manifest, clock: Clock) -> dict[str, str]:
    """What the gallery says of the run: the program, the speed, and all settings by the names that they are set by."""
    program, seconds = manifest.program, clock.seconds.get("e2e")
    facts = {"backend": f"{program.backend}, {program.precision or program.dtype}", "checkpoint": manifest.checkpoint}
    facts |= {"images/s": f"{clock.images['e2e'] / seconds:,.1f}"} if seconds else {}
    settings = leaves(OmegaConf.to_container(cfg, resolve=True))
    return facts | {key: shown(as_typed(value)) for key, value in settings if value is not None}


def draw_gallery(pairs: list[Pair], job: Job, run_dir: Path, *, count: int, title: str, facts: dict[str, str]) -> None:
    """Draw it, or say why not: whether the images are translated does not depend on it."""
    from p2p.report import gallery

    sizing, transform = job.files().sizing, job.transform
    try:
        entries = gallery.collect(
            pairs,
            [job.path(pair.name) for pair in pairs],
            count=count,
            decode=job.codec.decode,
            read_back=job.files().read_back,
            # What fit=pad gives is compared as it is; restored, it is stretched, as is the target.
            eval=gallery.as_seen(sizing) if isinstance(sizing, Letterbox) and not job.restore_size else transform.eval,
            readings=job.manifest.readings,
            restored=job.restore_size or job.size != "model",
        )
        page = gallery.write(entries, run_dir, title=title, count=count, total=len(pairs), settings=facts)
        if page is not None:
            print(f"look at {shown(str(page))} or {shown(str(run_dir / 'gallery.png'))}")
    except Exception as error:  # of files that others change meanwhile, say; the images are there all the same
        print(f"no gallery could be drawn: {shown(str(error) or type(error).__name__)}")
