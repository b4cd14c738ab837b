"""`python -m p2p.interop to-reference CKPT OUT_DIR`: a checkpoint of train.py as the reference's .pth files."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from hydra.utils import instantiate

from p2p.cli import one_sentence
from p2p.deploy.export import load_weights
from p2p.interop.reference import recognize_discriminator, recognize_generator, to_reference
from p2p.run import read_record


def main() -> None:
    """Do what the command line says; a user's mistake is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m p2p.interop", description="Weights for other implementations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("to-reference", help="write latest_net_G.pth and latest_net_D.pth of a checkpoint")
    command.add_argument("checkpoint", type=Path, help="such as runs/<name>/checkpoints/last.ckpt")
    command.add_argument("folder", type=Path, help="where the two files go, such as the reference's checkpoints/<name>")
    arguments = parser.parse_args()
    with one_sentence("train", full=False):
        write_reference(arguments.checkpoint, arguments.folder)


def write_reference(checkpoint: Path, folder: Path) -> None:
    """Write both files, and print the options with which the reference loads them.

    A discriminator that the reference does not have is left out: translating needs none.

    Raises:
        ValueError: no checkpoint of train.py in its run's folder, or a generator that the reference does not have.
    """
    record = read_record(checkpoint.resolve().parent.parent)
    generator = instantiate(record.generator, _convert_="all")
    load_weights(generator, checkpoint)

    weights = to_reference(generator)
    found = recognize_generator(weights, checkpoint)
    into, out, width, norm = (found.arguments[key] for key in ("in_channels", "out_channels", "width", "norm"))
    options = f"--netG {found.name} --ngf {width} --norm {norm} --input_nc {into} --output_nc {out}"
    options += "" if record.generator.get("dropout") else " --no_dropout"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "latest_net_G.pth")

    try:
        if record.adversarial is None:
            raise ValueError("the run has no discriminator")
        discriminator = instantiate(record.discriminator, _convert_="all")
        load_weights(discriminator, checkpoint, part="discriminator")
        weights = to_reference(discriminator)
        judge = recognize_discriminator(weights, checkpoint, input_channels=into, target_channels=out).arguments
        if not judge["conditional"] or judge["norm"] != norm:
            raise ValueError("the reference's is conditional and has the generator's norm")
        torch.save(weights, folder / "latest_net_D.pth")
        kind = f"n_layers --n_layers_D {judge['layers']}" if "layers" in judge else "pixel"
        options += f" --netD {kind} --ndf {judge['width']}"
    except ValueError as error:
        print(f"no latest_net_D.pth: {error}")
    print(f"{folder}/latest_net_G.pth: test it with {options} --direction {record.data.direction}")


if __name__ == "__main__":
    main()
