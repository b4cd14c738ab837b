"""Command lines as users of other programs type them: corrected, or answered with what to type here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from p2p.config.pasteable import command_line, hydra_value
from p2p.config.paths import EMPTY

FLAGS = (  # all of Hydra's
    *("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package", "-r", "--run"),
    *("-m", "--multirun", "-s", "--shell-completion", "-i", "--info", "--experimental-rerun"),
    *("-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
)
SAME = ("name", "seed", "batch_size", "epochs", "image_size", "input", "output", "device")
KEYS = {key: key for key in SAME} | {  # of the reference's options, those that are asked for most
    "dataroot": "data.root",
    "direction": "data.direction",
    "lambda_L1": "model.lambda_l1",
    "lr": "optimizer.lr",
    "crop_size": "image_size",
    "load_size": "transform.load_size",
    "preprocess": "transform.preprocess",
    "num_threads": "data.workers",
}


def check_arguments(command: str, arguments: list[str]) -> None:
    """Refuse options with dashes, which Hydra would answer with a page about its own, and settings without a value.

    Raises:
        ValueError: there is one, and how it would be written.
    """
    for word in arguments:
        if match := re.fullmatch(r"\+*([\w./@]+)=\s*(['\"]?)\s*\2", word):
            raise ValueError(EMPTY.format(key=match[1]))
    dashed = [word for word in arguments if word.startswith("-") and not _of_hydra(word)]
    if dashed:
        here = " ".join(_as_settings(command, arguments)) or "key=value"
        raise ValueError(
            f"{dashed[0]} is not known: settings are written without dashes, as in {here};"
            f" docs/coming-from-the-reference.md has all options of pytorch-CycleGAN-and-pix2pix"
        )


def home_in_quotes(arguments: list[str]) -> list[str]:
    """data.root=~/pairs, which Hydra could not read, in its quotes; `p2p.config.paths` knows what ~ means."""
    return [re.sub(r"(?s)^([\w.+/@]+=)(@?~[^,'\"\[\]{}]*)$", _quoted, argument) for argument in arguments]


def without_plus(arguments: list[str]) -> list[str]:
    """pipeline=overlap of +pipeline=overlap, as it was written before infer.py had a pipeline among its defaults."""
    return [re.sub(r"^\++(?=pipeline=)", "", argument) for argument in arguments]


def with_weights(arguments: list[str]) -> list[str]:
    """weights=emoji of a first word that is no setting: `p2p serve emoji`."""
    first = arguments[0] if arguments else "-"
    return arguments if "=" in first or first[:1] in "-+~" else [f"weights={hydra_value(first)}", *arguments[1:]]


def without_value(word: str, *, command: str, keys: list[str]) -> str:
    """What to say of an argument that is no key=value."""
    key = word.lstrip("+")
    if key in keys:
        return f"{word} has no value: write {word}=..., such as {word}=true for a switch"
    if command == "infer" and not word.startswith("~"):
        return f"{word} has no key: write input={word} to translate it"
    if command == "train" and Path(word).is_dir():
        return f"{word} has no key: write data=folder data.root={word} to train on its pairs"
    return f"{word} has no key: settings are written key=value; see {command_line(command, '--help')}"


def _of_hydra(word: str) -> bool:
    word = word.partition("=")[0]
    return word in FLAGS or (len(word) > 3 and any(flag.startswith(word) for flag in FLAGS))


def _as_settings(command: str, arguments: list[str]) -> Iterator[str]:
    """name=x data.root=y of --name x --dataroot=y; what is called otherwise here, or nothing, is left out."""
    for word, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        option, _, value = word.lstrip("-").partition("=")
        value = value or following
        if not word.startswith("-") or option not in KEYS or value.startswith("-"):
            continue
        key = "input" if (command, option) == ("infer", "dataroot") else KEYS[option]
        yield from ["data=folder"] * (key == "data.root")
        yield f"{key}={value}" if re.fullmatch(r"[\w./-]+", value) else shlex.quote(f"{key}={hydra_value(value)}")


def _quoted(match: re.Match) -> str:
    return match[1] + hydra_value(match[2])
