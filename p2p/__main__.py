"""The command `p2p`, also as `python -m p2p`: train, export, infer, serve and three tools, from any folder."""

from __future__ import annotations

import difflib
import importlib
import sys

from p2p import __version__
from p2p.system.signals import stoppable

COMMANDS = {
    "train": "train on pairs of images: runs/<name>/checkpoints",
    "export": "turn a checkpoint into a program: runs/<name>/export",
    "infer": "translate images: runs/<name>/images",
    "serve": "a page to draw on beside the translation, and an HTTP interface",
    "pair": "make pairs of images to train on",
    "to-reference": "write a checkpoint as .pth files of pytorch-CycleGAN-and-pix2pix",
    "to-safetensors": "write a trained generator as one small file, which p2p.load and infer weights= take",
}
TOOLS = ("pair", "to-reference", "to-safetensors")  # with options of their own, in place of Hydra's settings
USAGE = "\n".join(
    [
        "usage: p2p COMMAND ...",
        "",
        *(f"  {name:<16}{what}" for name, what in COMMANDS.items()),
        "",
        "p2p COMMAND --help explains one; p2p --version",
    ]
)


def main() -> None:
    """Do what the command line says, as `python train.py ...` does for `p2p train ...`."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
    elif command == "--version":
        print(f"p2p {__version__}")
    elif command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f", did you mean {near[0]}" if near else ""
        sys.exit(f"error: {command} is not a command of p2p{hint}; known are {', '.join(COMMANDS)}")
    elif command in TOOLS:
        with stoppable():  # imports, too
            importlib.import_module(f"p2p.commands.{command.replace('-', '_')}").main(arguments)
    else:
        with stoppable():
            from p2p.commands.start import run_command

            run_command(command, arguments)


if __name__ == "__main__":
    main()
