"""Translate images with an exported generator: what `infer.py` does, in order."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from p2p.cli import some_of
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.engine import Engine, load_engine
from p2p.device import pick_device
from p2p.pipelines.stages import Stages, progress_bar
from p2p.profiling.clock import Clock
from p2p.report import gallery
from p2p.report.tables import show_stages
from p2p.run import inputs_to_translate, keep_apart
from p2p.settings import check_output

SEQUENTIAL = {"_target_": "p2p.pipelines.sequential.run", "_partial_": True}  # conf/pipeline is in no defaults list


def main(cfg: DictConfig) -> None:
    """Do it, under a profiler if cfg.profile asks for one."""
    clock = Clock()
    with (instantiate(cfg.profile) or nullcontext)(clock):
        translate(cfg, clock)


def transform_for(engine: Engine, options: DictConfig) -> Torchvision:
    """What brings images to the size that a program takes: as in training, but for the options that are given.

    Raises:
        ValueError: an option cannot be given here.
    """
    for key in ("load_size", "flip"):
        if options[key] is not None:
            raise ValueError(f"transform.{key} is of training alone: leave it out")
    if options.image_size not in (None, engine.image_size):
        raise ValueError(
            f"transform.image_size={options.image_size} is not the size that the program takes, {engine.image_size}:"
            " leave it out, or train and export with another image_size"
        )
    preprocess = options.preprocess or engine.manifest.preprocess
    multiple = options.multiple
    if multiple is None and not preprocess.endswith("crop"):
        multiple = engine.manifest.multiple
    return instantiate(options, image_size=engine.image_size, preprocess=preprocess, multiple=multiple, flip=False)


def translate(cfg: DictConfig, clock: Clock) -> None:
    """Translate cfg.input into cfg.output, print how long each stage took, and draw a gallery."""
    run_dir = Path(cfg.run_dir)
    with clock("init"):
        engine = load_engine(Path(cfg.export), device=pick_device(cfg.device))
        engine.check_batch_size(cfg.batch_size)
        codec = instantiate(cfg.codec)
        codec.check_channels(engine.manifest.output_shape[0])
        transform = transform_for(engine, cfg.transform)
        pairs = inputs_to_translate(cfg, direction=engine.manifest.direction)
        stages = Stages(
            engine=engine,
            transform=transform,
            codec=codec,
            output=Path(cfg.output),
            clock=clock,
            restore_size=cfg.restore_size,
        )
        keep_apart(pairs, [stages.path(pair.name) for pair in pairs], source=cfg.input, output=Path(cfg.output))
        check_output(Path(cfg.output))
        todo = [pair for pair in pairs if not (cfg.skip_existing and stages.path(pair.name).is_file())]
        pipeline = instantiate(cfg.get("pipeline") or SEQUENTIAL)
    try:
        with progress_bar(len(todo)) as bar:
            stages.on_image = bar.update
            pipeline(todo, stages, batch_size=cfg.batch_size)
    finally:
        show_stages(clock, format=cfg.codec.format)
    done = len(todo) - len(stages.failures)
    print(f"{done} images written to {cfg.output}, {len(stages.failures)} failed, {len(pairs) - len(todo)} skipped")
    entries = gallery.collect(pairs, stages, count=cfg.gallery)
    if entries:
        there = len(pairs) - len(stages.failures)
        gallery.write(entries, run_dir, title=f"p2p: {cfg.name}", total=there)
        print(f"look at {run_dir / 'index.html'} or {run_dir / 'gallery.png'}")
    if stages.failures:
        reasons = list(stages.failures.values())
        raise ValueError(f"{len(reasons)} of {len(todo)} images failed: {some_of(reasons)}")
