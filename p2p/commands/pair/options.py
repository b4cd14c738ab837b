"""The command line of `p2p pair`."""

from __future__ import annotations

import argparse
from pathlib import Path

from p2p.config.pasteable import command_line

# What each tool does: in the list of tools, and on its own page.
TOOLS = {
    "edges": (
        "line drawing | photo, from a folder of photos",
        "Write (line drawing | photo) for every photo, by Canny's edge detector.",
    ),
    "grayscale": (
        "grey photo | photo, from a folder of photos",
        "Write (grey photo | photo) for every photo, to learn colours.",
    ),
    "blank": (
        "photo with a blank middle | photo, from a folder of photos",
        "Write (photo with a blank middle | photo) for every photo, to learn to fill it.",
    ),
    "combine": (
        "A | B, from two folders of images with equal names",
        "Write (A | B) for every two images of equal size and equal path inside A and B; suffixes may differ.",
    ),
    "split": (
        "train/ and val/, from one folder of A|B images",
        "Copy A|B images into OUT/train and OUT/val. Their names decide which go where: it is the same every time.",
    ),
    "resize": (
        "images of one size, from a folder of images",
        "Write every image at one size, under its own name. The aspect ratio stays: the middle is cropped, or --pad"
        " adds borders. Grey stays grey, and 16 bits stay 16 bits in png.",
    ),
    "pad": (
        "images with borders, from a folder of images",
        "Write every image with borders, under its own name. No pixel of the image changes.",
    ),
}
OF_PHOTOS = ("edges", "grayscale", "blank")
OF_IMAGES = ("resize", "pad")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of a command line, without the name of the command; a mistake exits with status 2."""
    parser = argparse.ArgumentParser(
        prog="p2p pair",
        description="Make A|B images to train on. They keep the folders of the inputs, unless --val makes others.",
        epilog=f"Then: {command_line('train')} data=folder data.root=OUT data.layout=side_by_side",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    tools = {name: commands.add_parser(name, help=what, description=page) for name, (what, page) in TOOLS.items()}
    for name, tool in tools.items():
        _add_folders(name, tool)
        if name not in OF_IMAGES:
            _add_share(tool, default=0.15 if name == "split" else None)
        if name != "split":
            _add_format(tool)
        tool.add_argument("--skip-existing", action="store_true", help="leave out images whose file in OUT exists")
    for name in OF_IMAGES:
        _add_meaning(tools[name])
    size = "side in pixels, or width and height as in 512x256; of A|B images that of each half"
    tools["resize"].add_argument("--size", default="256", metavar="SIZE", help=f"{size} (%(default)s)")
    tools["resize"].add_argument("--pad", action="store_true", help="keep the whole image, and add borders")
    tools["pad"].add_argument("--size", metavar="SIZE", help=f"{size} (default: a square of the longer side)")
    for flag, default, meaning in (
        ("--sigma", 1.5, "blur before the search for edges, in pixels; a larger one leaves out more detail"),
        ("--low", 0.02, "weakest edge that continues a line; 1 is black to white within a pixel"),
        ("--high", 0.05, "weakest edge that begins a line"),
    ):
        tools["edges"].add_argument(flag, type=float, default=default, metavar="X", help=f"{meaning} (%(default)s)")
    tools["grayscale"].add_argument(
        "--lightness",
        action="store_true",
        help="give the grey photo the lightness of the photo (L of CIE Lab), as train.py experiment=colorization needs"
        " it (default: its luma, by ITU-R 601-2)",
    )
    share = "share of width and height that is blank"
    tools["blank"].add_argument("--share", type=float, default=0.3, metavar="X", help=f"{share} (%(default)s)")
    tools["blank"].add_argument(
        "--colour", default="white", metavar="C", help="colour of the blank middle (%(default)s)"
    )
    return parser.parse_args(arguments)


def _add_folders(name: str, tool: argparse.ArgumentParser) -> None:
    searched = "folders inside are searched, too"
    if name == "combine":
        for side in "AB":
            tool.add_argument(side.lower(), type=Path, metavar=side, help=f"a folder of images; {searched}")
    else:
        word = "photos" if name in OF_PHOTOS else "folder"
        what = "photos" if name in OF_PHOTOS else "images"
        tool.add_argument(word, type=Path, metavar=word.upper(), help=f"the folder of the {what}; {searched}")
    written = "images" if name in OF_IMAGES else "pairs"
    tool.add_argument("out", type=Path, metavar="OUT", help=f"the folder to write the {written} to")


def _add_share(tool: argparse.ArgumentParser, *, default: float | None) -> None:
    meaning = "share of the pairs to put into val/, such as 0.15; the others go to train/"
    standard = "default: %(default)s" if default else "default: folders stay as they are"
    tool.add_argument("--val", type=float, default=default, metavar="X", help=f"{meaning} ({standard})")


def _add_format(tool: argparse.ArgumentParser) -> None:
    formats = ("png", "jpg", "webp")
    tool.add_argument("--format", choices=formats, default="png", help="file format to write (%(default)s)")
    quality = "quality of jpg and webp, 1 to 100"
    tool.add_argument("--quality", type=int, default=95, metavar="Q", help=f"{quality} (%(default)s)")


def _add_meaning(tool: argparse.ArgumentParser) -> None:
    tool.add_argument(
        "--layout",
        choices=("inputs", "side_by_side"),
        help="side_by_side: each image holds A and B, and each half is treated by itself; inputs: single images"
        " (default: single images, and those that look like A|B are refused)",
    )
    tool.add_argument(
        "--labels",
        action="store_true",
        help="images hold labels, one number a pixel, as grey or in a palette: no new numbers arise",
    )
    borders = "colour of borders, on which transparent images are laid, too (white); with --labels a label (0)"
    tool.add_argument("--colour", metavar="C", help=borders)
