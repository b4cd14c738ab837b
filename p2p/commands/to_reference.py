"""`p2p to-reference CKPT OUT`: a checkpoint of train.py as .pth files of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Literal

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from p2p.config.cli import one_sentence, wants_trace
from p2p.data.reading import readings_of
from p2p.deploy import rewrite
from p2p.deploy.export import load_weights
from p2p.image_size import height_and_width
from p2p.interop.files import network_files
from p2p.models.inference_view import resolve_norm_stats
from p2p.models.lab import LabUNet
from p2p.models.unet import UNet
from p2p.run.checkpoint import check_checkpoint, write_checkpoint
from p2p.run.record import read_record, validated_weights
from p2p.system.signals import work

NET_G = ("unet_128", "unet_256", "resnet_6blocks", "resnet_9blocks")  # all that the reference's --netG knows
CROP_SIZE = 256  # default of its --crop_size and, in test.py, of its --load_size


def main(arguments: list[str]) -> None:
    """The command line, without the name of the command; a user's mistake is one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="p2p to-reference",
        description="Write latest_net_G.pth and latest_net_D.pth of a checkpoint for pytorch-CycleGAN-and-pix2pix, the"
        " reference, and print the command that tests them there.",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CKPT",
        type=Path,
        help="a checkpoint in the folder of its run, such as runs/<name>/checkpoints/last.ckpt",
    )
    parser.add_argument(
        "folder",
        metavar="OUT",
        type=Path,
        help="the folder to write to, such as checkpoints/<name> of pytorch-CycleGAN-and-pix2pix",
    )
    parser.add_argument(
        "--weights",
        choices=("trained", "ema"),
        help="weights as trained, or their average (callbacks=ema); default: those of the run's validation",
    )
    chosen = parser.parse_args(arguments)
    with one_sentence("to-reference", full=wants_trace()):
        work()
        write_reference(chosen.checkpoint, chosen.folder, weights=chosen.weights)


def write_reference(checkpoint: Path, folder: Path, *, weights: Literal["trained", "ema"] | None = None) -> None:
    """Write both files, and print the command with which the reference tests them.

    A discriminator that the reference does not have is left out: translating needs none. A U-Net or ResNet of a
    size that no --netG of the reference makes is written and said to be one: its classes make it, its options do not.

    Args:
        weights: of the generator; None for those that the run was validated with.

    Raises:
        ValueError: no checkpoint of train.py in its run's folder, one without such weights, or a generator that the
            reference does not have.
    """
    check_checkpoint(checkpoint)
    record = read_record(checkpoint.resolve().parent.parent, checkpoint)
    generator = instantiate(record.generator, _convert_="all")
    weights = weights or validated_weights(record)
    load_weights(generator, checkpoint, weights=weights)
    files = network_files(rewrite.fold_resize(generator), lambda: _discriminator(record, checkpoint), checkpoint)
    found, judge = files.generator, files.discriminator
    into, out, width, norm = (found.arguments[key] for key in ("in_channels", "out_channels", "width", "norm"))
    folder.mkdir(parents=True, exist_ok=True)
    for letter, state in files.weights.items():
        write_checkpoint(folder / f"latest_net_{letter}.pth", state)
    print(f"{folder}/latest_net_G.pth: {found}, the {weights} weights")
    if not all(reading.of_pictures for reading in readings_of(record.data)):
        print("pytorch-CycleGAN-and-pix2pix does not have data.range and data.labels: give it images in [-1, 1]")
    options = [f"--netG {found.name} --ngf {width} --norm {norm} --input_nc {into} --output_nc {out}"]
    colorization = isinstance(generator, LabUNet)  # it reads colour photos, and makes their grey itself
    of_data = _of_the_data(record, norm, direction="AtoB" if colorization else record.data.direction)
    # A U-Net has the same keys without dropout, so this only turns it off. A ResNet has others.
    if not record.generator.get("dropout") or found.network is UNet:
        options.append("--no_dropout")
    elif "--eval" not in of_data:
        print("pytorch-CycleGAN-and-pix2pix tests this ResNet with dropout: its outputs differ from those of infer.py")
    if judge is None:
        print(f"no latest_net_D.pth: {files.left_out}")
    else:
        kind = f"n_layers --n_layers_D {judge['layers']}" if "layers" in judge else "pixel"
        options.append(f"--netD {kind} --ndf {judge['width']}")
    options += of_data

    if found.name not in NET_G:
        print(
            f"pytorch-CycleGAN-and-pix2pix makes no --netG {found.name}, only {', '.join(NET_G)}: its define_G needs a"
            " line for it"
        )
    where = shlex.join(["--checkpoints_dir", str(folder.parent.resolve()), "--name", folder.resolve().name])
    what = "colorization --dataroot PHOTOS" if colorization else "pix2pix --dataroot PAIRS"
    print(f"next, there: python test.py --model {what} {where} {' '.join(options)}")


def _discriminator(record: DictConfig, checkpoint: Path) -> nn.Module | None:
    if record.adversarial is None:
        return None
    discriminator = instantiate(record.discriminator, _convert_="all")
    load_weights(discriminator, checkpoint, part="discriminator")
    return discriminator


def _of_the_data(record: DictConfig, norm: str, *, direction: str) -> list[str]:
    """What the reference's test.py has to know beside the networks; defaults are left out."""
    options = [f"--direction {direction}"]
    (height, width), preprocess = height_and_width(record.image_size), record.transform.preprocess
    if height != width and preprocess.endswith("crop"):
        print(
            "pytorch-CycleGAN-and-pix2pix resizes to squares: the images of its PAIRS have to be"
            f" {width}x{height} pixels already"
        )
        preprocess = "none"
    elif (height, width) != (CROP_SIZE, CROP_SIZE):
        options.append(f"--load_size {width} --crop_size {height}")
    if preprocess != "resize_and_crop":
        options.append(f"--preprocess {preprocess}")
    # Without --eval it takes the statistics of each image, and leaves dropout on.
    running = resolve_norm_stats(record.norm_stats, batch_size=record.batch_size) == "running"
    return [*options, "--eval"] if norm != "batch" or running else options
