"""What a run of `infer.py` is to do: found and checked before torch is imported, and before anything is written."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from p2p.codecs.values import is_transparent
from p2p.commands.devices import devices_for
from p2p.commands.infer_settings import check_alpha, check_fresh, transform_for
from p2p.commands.run import inputs_to_translate, keep_apart
from p2p.config.cli import of_job
from p2p.config.shown import shown
from p2p.data.pairs import Pair
from p2p.deploy import published
from p2p.deploy.manifest import Manifest, check_fit, check_size, check_tile_stats
from p2p.pipelines.job import Job
from p2p.pipelines.outputs import read_history, source_of, to_do
from p2p.pipelines.packer import check_format, facts_of_shards, loose_files, shards_of, with_whole_shards
from p2p.system.device import check_device, find_devices
from p2p.system.plural import counted
from p2p.system.urls import located

USUAL = {"size": "model", "fit": "stretch", "tile_stats": "tile"}  # outputs of earlier versions, which do not say it


class Plan(NamedTuple):
    """What a run does.

    Attributes:
        folder: of the outputs, here or in a store.
        pairs: all that were found.
        outputs: of each the file that its output ends in: one of its own, or a shard.
        todo: the pairs that are translated.
        settings: what the history of the folder keeps.
        devices: that work, one or several.
        job: what is done to each image.
        packs: the outputs are packed into shards.
    """

    folder: Path
    pairs: list[Pair]
    outputs: list[Path]
    todo: list[Pair]
    settings: dict
    devices: list[str]
    job: Job
    packs: bool


def make_plan(cfg: DictConfig, *, stack: ExitStack, each_span: bool) -> Plan:
    """Check all that concerns settings and files, and find what there is to do.

    Args:
        stack: removes with its block what outputs are kept in until they are packed.
        each_span: whether a timeline is wanted.

    Raises:
        ValueError: a setting does not suit the program or the files, and what to do.
    """
    check_device(cfg.device)
    devices = find_devices(cfg.device, OmegaConf.to_object(cfg)["devices"])
    program, manifest = program_of(cfg)
    check_size(cfg.size, manifest, program)
    check_tile_stats(cfg.tile_stats, manifest.program.backend)
    check_fit(cfg.fit)
    check_format(cfg.output_format)
    codec = instantiate(cfg.codec)
    codec.check_channels(manifest.output_shape[0])
    check_alpha(cfg.alpha, codec)
    transform = transform_for(manifest, cfg.transform)
    pairs = inputs_to_translate(cfg, direction=manifest.direction)
    if cfg.alpha == "drop" and manifest.background is None and is_transparent(pairs[0].input.path):
        print(f"{pairs[0].input.path} has transparent parts, and outputs are opaque: alpha=keep keeps them")
    folder, packs = located(cfg.output), cfg.output_format != "files"
    if packs:
        outputs = shards_of(pairs, folder, format=cfg.output_format, size=cfg.shard_size)
    else:
        outputs = [folder / f"{pair.name}{codec.suffix}" for pair in pairs]
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
        each_span=each_span,
    )
    return Plan(folder, pairs, outputs, todo, settings, devices, job, packs)


def program_of(cfg: DictConfig) -> tuple[Path, Manifest]:
    """The export's folder or the file of weights, and what it takes and gives."""
    if cfg.weights is not None:
        program = published.find(cfg.weights)
        return program, published.manifest_of(program)
    check_fresh(cfg)
    return Path(cfg.export), Manifest.load(Path(cfg.export))


def codec_settings(codec: DictConfig) -> dict:
    """What the outputs' history keeps of a codec: without bits=null, which earlier versions did not have."""
    return {key: value for key, value in OmegaConf.to_container(codec, resolve=True).items() if value is not None}


def not_done(pairs: list[Pair], outputs: list[Path], folder: Path, settings: dict) -> list[Pair]:
    """The pairs that skip_existing does not skip; says so where there is an output, and why."""
    todo, why = to_do(pairs, outputs, history=read_history(folder), settings=settings)
    if why:
        where = shown(str(folder))
        reasons = ", ".join(f"{count} {reason}" for reason, count in why.items())
        these = counted(why.total(), f"image in {where} is", f"images in {where} are")
        print(f"{these} written again: {reasons}")
    return todo
