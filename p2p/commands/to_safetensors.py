"""`p2p to-safetensors CKPT OUT`: a trained generator as one file, which `p2p.load` and `infer weights=` take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from hydra.utils import instantiate
from omegaconf import OmegaConf

from p2p.config.cli import one_sentence, wants_trace
from p2p.data.reading import facts_of_readings, readings_of
from p2p.deploy import published
from p2p.deploy.export import load_weights
from p2p.models.inference_view import resolve_norm_stats
from p2p.run.checkpoint import check_checkpoint
from p2p.run.record import read_record, validated_weights
from p2p.system.signals import work


def main(arguments: list[str]) -> None:
    """The command line, without the name of the command; a user's mistake is one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="p2p to-safetensors",
        description="Write the generator of a checkpoint as one file without code, its kernels in float16, to be passed"
        " on: p2p.load(OUT) and p2p infer weights=OUT translate with it.",
    )
    parser.add_argument(
        "checkpoint", metavar="CKPT", type=Path, help="in its run's folder: runs/<name>/checkpoints/last.ckpt"
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="the file, such as mine.safetensors")
    parser.add_argument(
        "--weights",
        choices=("trained", "ema"),
        help="as trained, or their average (callbacks=ema); left out, as the run was validated",
    )
    chosen = parser.parse_args(arguments)
    with one_sentence("to-safetensors", full=wants_trace()):
        work()
        write_safetensors(chosen.checkpoint, chosen.output, weights=chosen.weights)


def write_safetensors(checkpoint: Path, output: Path, *, weights: Literal["trained", "ema"] | None = None) -> None:
    """Write the file, and print the command that translates with it.

    Args:
        weights: None for those that the run was validated with.

    Raises:
        ValueError: no checkpoint of train.py in its run's folder, one without such weights, or another suffix.
    """
    if output.suffix != published.SUFFIX:
        raise ValueError(
            f"{output} does not end in {published.SUFFIX}: call it {output.with_suffix(published.SUFFIX).name}"
        )
    check_checkpoint(checkpoint)
    record = read_record(checkpoint.resolve().parent.parent, checkpoint)
    generator = instantiate(record.generator, _convert_="all")
    weights = weights or validated_weights(record)
    load_weights(generator, checkpoint, weights=weights)
    sizing = instantiate(record.transform, _convert_="all").sizing
    facts = published.Published(
        generator=OmegaConf.to_container(record.generator, resolve=True),
        input_channels=record.data.input_channels,
        target_channels=record.data.target_channels,
        norm_stats=resolve_norm_stats(record.norm_stats, batch_size=record.batch_size),
        direction=record.data.direction,
        preprocess=record.transform.preprocess,
        multiple=sizing.multiple,
        image_size=sizing.size,
        stride=getattr(generator, "stride", None) or sizing.multiple,
        **facts_of_readings(*readings_of(record.data)),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    published.write(output, generator, facts)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, the {weights} weights of {checkpoint}")
    print(f"next: p2p infer weights={output} input=your/images")
