"""What the commands find in a run's folder.

Export and inference go by the record of the training, its resolved config, so that they never disagree with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from p2p.data.mirror import local
from p2p.data.pages import Pages, check_pages, left_out
from p2p.data.pairs import Direction, Pair, check_outside, find_inputs, looks_side_by_side, sides_of
from p2p.data.shards import is_shard, shards_at
from p2p.data.splits import find_split
from p2p.data.walk import Skipped, summary
from p2p.run.record import read_record
from p2p.system.plural import counted
from p2p.system.urls import is_url, located


def settle_norm_stats(cfg: DictConfig, *, processes: int) -> None:
    """Put in the place of norm_stats=auto what it stands for, so that the record tells it to export.py, too.

    It goes by the images of which BatchNorm takes the statistics together: a batch, or with trainer.sync_batchnorm the
    batches of all processes that train.
    """
    from p2p.models.inference_view import resolve_norm_stats  # here: infer.py finds its inputs before it imports torch

    together = cfg.batch_size * (processes if cfg.trainer.get("sync_batchnorm") else 1)
    cfg.norm_stats = resolve_norm_stats(cfg.norm_stats, batch_size=together)


def inputs_to_translate(cfg: DictConfig, *, direction: Direction) -> list[Pair]:
    """What `infer.py` is asked to translate: cfg.input, or else the validation inputs of cfg's run.

    Raises:
        ValueError: there is nothing, neither an input nor a run, or a layout of the run's own pairs.
    """
    if cfg.input is None and cfg.weights is not None:
        raise ValueError(f"weights={cfg.weights} has no images of its own: add input=, the images to translate")
    if cfg.input is None:
        if cfg.layout is not None:
            raise ValueError(
                f"layout={cfg.layout} applies only to input=, and the run has the layout of its own pairs: leave it out"
            )
        if cfg.pages is not None:
            raise ValueError(
                f"pages={cfg.pages} applies only to input=, and the run has the pages of its own pairs: leave it out"
            )
        data = read_record(Path(cfg.run_dir), instead=", or say what to translate with input=").data
        layout = data.get("layout")  # absent from records of earlier versions
        options = {"layout": layout, "pages": data.get("pages", "first")}
        pairs, said = find_split(local(data.root), data.val, key="data.val", direction=direction, **options)
        if said is not None:
            print(said)
        return pairs
    skipped: Skipped = {}
    pages: Pages = cfg.pages or "first"
    check_pages(pages)
    pairs = find_inputs(cfg.input, layout=cfg.layout, direction=direction, pages=pages, skipped=skipped)
    if skipped:
        print(f"{counted(len(pairs), 'image')} in {cfg.input}{summary(skipped)}")
    if cfg.layout is None and pairs[0].target is not None:
        a, b = sides_of(Path(cfg.input))
        print(f"{a} and {b} are taken as pairs: layout=inputs translates the images of both")
    if cfg.layout is None and looks_side_by_side(pairs[0]):
        print(f"{pairs[0].input.path} is twice as wide as high: for A|B pairs add layout=side_by_side")
    if cfg.pages is None and (more := left_out(pair.input.path for pair in pairs)):
        print(f"{more}: pages=all translates each")
    return pairs


def keep_apart(pairs: list[Pair], outputs: list[Path], *, source: str | None, output: Path) -> None:
    """Raise a ValueError where outputs would replace inputs, or be found among them the next time.

    Args:
        pairs: what is to be translated.
        outputs: of each the file that is to be written.
        source: the folder, file, pattern or list that they were found by.
        output: the folder of the outputs.
    """
    if source is not None and is_url(source) and f"{output}/".startswith(f"{located(source)}/"):
        raise ValueError(f"{output} is in {source}, where it would be read the next time: choose another output")
    if source is not None and Path(source).is_dir():
        check_outside(output, Path(source))
    inputs = {_identity(pair.input.path) for pair in pairs}
    if source is not None and is_shard(source):  # of Parquet files the images are in the cache
        inputs |= {_identity(shard) for shard in shards_at(source)}
    for path in outputs:
        if _identity(path) in inputs:
            raise ValueError(f"{path} is an input, and output={output} would replace it: use another output")


def _identity(path: Path) -> str:
    return str(path) if is_url(path) else os.path.realpath(path)
