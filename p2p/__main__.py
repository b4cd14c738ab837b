"""The command `p2p`, also as `python -m p2p`: train, export, infer and two tools, from any folder."""

from __future__ import annotations

import difflib
import sys

from p2p import __version__
from p2p.system.signals import stoppable

COMMANDS = {
    "train": "train on pairs of images: runs/<name>/checkpoints",
    "export": "turn a checkpoint into a program: runs/<name>/export",
    "infer": "translate images: runs/<name>/images",
    "pair": "make pairs of images to train on",
    "to-reference": "write a checkpoint as .pth files of pytorch-CycleGAN-and-pix2pix",
}
USAGE = "\n".join(
    [
        "usage: p2p COMMAND ...",
        "",
        *(f"  {name:<14}{what}" for name, what in COMMANDS.items()),
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
        sys.exit(f"error: {command} is no command of p2p{hint}; known are {', '.join(COMMANDS)}")
    elif command == "pair":
        from p2p.commands.pair import main as pair

        pair(arguments)
    elif command == "to-reference":
        from p2p.commands.to_reference import main as to_reference

        to_reference(arguments)
    else:
        with stoppable():  # imports, too
            from p2p.config.cli import run_command

            run_command(command, arguments)


if __name__ == "__main__":
    main()
