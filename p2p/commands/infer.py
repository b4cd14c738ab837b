"""Translate images with an exported generator: what `infer.py` does, in order.

All that concerns files is found and checked before torch is imported, which `p2p.pipelines.stages` and the engine do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from p2p.codecs.values import is_transparent
from p2p.commands.devices import RAY, devices_for, on_cluster, on_one, on_several, workers_wanted
from p2p.commands.infer_settings import check_alpha, check_fresh, transform_for
from p2p.commands.results import Translated
from p2p.commands.run import inputs_to_translate, keep_apart
from p2p.config.cli import of_job, some_of
from p2p.config.shown import as_typed, shown
from p2p.data.pairs import Pair
from p2p.data.transforms.letterbox import Letterbox
from p2p.deploy import published
from p2p.deploy.manifest import Manifest, check_fit, check_size, check_tile_stats
from p2p.pipelines.auto import OVERLAPS
from p2p.pipelines.job import Job
from p2p.pipelines.outcome import Outcome, progress_bar
from p2p.pipelines.outputs import add_to_history, blocked, read_history, source_of, sweep, to_do
from p2p.pipelines.packer import check_format, facts_of_shards, loose_files, packing, shards_of, with_whole_shards
from p2p.pipelines.processes import early
from p2p.profiling.clock import Clock
from p2p.report.failures import listed
from p2p.report.limit import OVERLAP
from p2p.report.tables import show_stages
from p2p.run.leaves import leaves
from p2p.system.device import check_device, find_devices
from p2p.system.folders import check_output
from p2p.system.memory import keep_freed_memory
from p2p.system.plural import counted
from p2p.system.urls import located

FAILURES = "failures.csv"
USUAL = {"size": "model", "fit": "stretch", "tile_stats": "tile"}  # outputs of earlier versions, which do not say it


def main(cfg: DictConfig) -> Translated:
    """Do it, under a profiler if cfg.profile asks for one."""
    clock = Clock()
    keep_freed_memory()
    with (instantiate(cfg.profile) or nullcontext)(clock), early() as start_workers:
        return translate(cfg, clock, start_workers)


def codec_settings(codec: DictConfig) -> dict:
    """What the outputs' history keeps of a codec: without bits=null, which earlier versions did not have."""
    return {key: value for key, value in OmegaConf.to_container(codec, resolve=True).items() if value is not None}


def translate(cfg: DictConfig, clock: Clock, start_workers: Callable[[int], None]) -> Translated:
    """Translate cfg.input into cfg.output, print how long each stage took, and draw a gallery."""
    folder = located(cfg.output)
    with ExitStack() as stack:
        with clock("init"):
            check_device(cfg.device)
            devices = find_devices(cfg.device, OmegaConf.to_object(cfg)["devices"])
            if cfg.weights is None:
                check_fresh(cfg)
                program = Path(cfg.export)
                manifest = Manifest.load(program)
            else:
                program = published.find(cfg.weights)
                manifest = published.manifest_of(program)
            check_size(cfg.size, manifest, program)
            check_tile_stats(cfg.tile_stats, manifest.program.backend)
            check_fit(cfg.fit)
            codec = instantiate(cfg.codec)
            codec.check_channels(manifest.output_shape[0])
            check_alpha(cfg.alpha, codec)
            transform = transform_for(manifest, cfg.transform)
            pairs = inputs_to_translate(cfg, direction=manifest.direction)
            if cfg.alpha == "drop" and manifest.background is None and is_transparent(pairs[0].input.path):
                print(f"{pairs[0].input.path} has transparent parts, and outputs are opaque: alpha=keep keeps them")
            outputs = [folder / f"{pair.name}{codec.suffix}" for pair in pairs]
            packs = cfg.output_format != "files"
            check_format(cfg.output_format)
            if packs:
                outputs = shards_of(pairs, folder, format=cfg.output_format, size=cfg.shard_size)
            keep_apart(pairs, outputs, source=cfg.input, output=folder)
            settings = {
                "program": manifest.program_sha256,
                "inputs": source_of(pairs[0]),
                "transform": {"class": type(transform).__name__, **vars(transform.sizing)},
                "restore_size": cfg.restore_size,
                **{key: cfg[key] for key, usual in USUAL.items() if cfg[key] != usual},
                "codec": codec_settings(cfg.codec),
                **({"alpha": cfg.alpha} if cfg.alpha != "drop" else {}),
                **({"shards": facts_of_shards(pairs, size=cfg.shard_size)} if packs else {}),
                **({"range": manifest.target_range} if manifest.target_range is not None else {}),
            }
            todo = not_done(pairs, outputs, folder, settings) if cfg.skip_existing else pairs
            todo = with_whole_shards(todo, pairs, outputs) if packs else todo
            devices = devices_for(cfg, devices, todo)
            job = Job(
                device=devices[0],
                program=program,
                manifest=manifest,
                whole=False,
                codec=codec,
                transform=transform,
                output=stack.enter_context(loose_files(Path(of_job(cfg.run_dir)).absolute())) if packs else folder,
                size=cfg.size,
                tile_stats=cfg.tile_stats,
                fit=cfg.fit,
                restore_size=cfg.restore_size,
                keeps_alpha=cfg.alpha == "keep",
                batch_size=cfg.batch_size,
                slots=cfg.pipeline.get("slots"),
                workers=cfg.pipeline.get("workers"),
                each_span=clock.spans is not None,
            )
            if cfg.pipeline._target_ == RAY:
                outcome, work = on_cluster(job, cfg.pipeline, clock=clock)
            elif len(devices) > 1:
                outcome, work = on_several(job, devices, todo, clock=clock, draws=cfg.gallery > 0, stack=stack)
            else:
                start_workers(workers_wanted(cfg.pipeline, todo, batch_size=cfg.batch_size))
                outcome, work = on_one(job, cfg.pipeline, todo, clock=clock)
            check_output(folder)
            sweep(folder, outputs)
        outcome.on_failure = stack.enter_context(listed(folder / FAILURES))
        add_to_history(folder, settings)
        try:
            with progress_bar(len(todo)) as bar:
                outcome.on_image = bar.update
                if not packs:
                    work(fail_blocked(todo, outputs, job, outcome))
                else:
                    shards = {pair.name: shard for pair, shard in zip(pairs, outputs, strict=True)}
                    with packing(todo, shards, job.path, outcome):
                        work(fail_blocked(todo, [job.path(pair.name) for pair in todo], job, outcome))
        except BaseException:
            sweep(folder, outputs)
            if outcome.failures:
                some = counted(len(outcome.failures), "image")
                print(f"{some} had failed until then, see {shown(str(folder / FAILURES))}")
            raise
        finally:
            show_stages(
                clock, format=codec.suffix.removeprefix("."), done=settings_done(cfg, manifest, images=len(todo))
            )
    failed = len(outcome.failures)
    done, skipped = len(todo) - failed, len(pairs) - len(todo)
    print(f"{counted(done, 'image')} written to {shown(cfg.output)}, {failed} failed, {skipped} skipped")
    there = [pair for pair in pairs if pair.name not in outcome.failures]
    facts = facts_of(cfg, manifest, clock)
    if packs:
        print("there is no page of results, because the outputs are in shards")
    else:
        draw_gallery(there, job, Path(of_job(cfg.run_dir)), count=cfg.gallery, title=f"p2p: {cfg.name}", facts=facts)
    if failed:
        reasons, of = some_of(list(outcome.failures.values())), counted(len(todo), "image")
        raise ValueError(f"{failed} of {of} failed: {reasons}; {folder / FAILURES} has them all")
    seconds = clock.seconds.get("e2e")
    speed = clock.images["e2e"] / seconds if seconds else None
    return Translated(folder, written=done, skipped=skipped, score=speed)


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


def not_done(pairs: list[Pair], outputs: list[Path], folder: Path, settings: dict) -> list[Pair]:
    """The pairs that skip_existing does not skip; says so where there is an output, and why."""
    todo, why = to_do(pairs, outputs, history=read_history(folder), settings=settings)
    if why:
        where = shown(str(folder))
        reasons = ", ".join(f"{count} {reason}" for reason, count in why.items())
        these = counted(why.total(), f"image in {where} is", f"images in {where} are")
        print(f"{these} written again: {reasons}")
    return todo


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
