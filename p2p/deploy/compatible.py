"""Check whether a program that was made on another machine, or earlier, can run here."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from p2p.deploy.backend import Backend
from p2p.deploy.manifest import Program, versions

log = logging.getLogger(__name__)

AGAIN = "export again on this machine"


def check_gpu(program: Program, path: Path, *, here: dict[str, str]) -> None:
    """Raise a ValueError if a program for a GPU does not run on the one that is `here` (`gpu_facts`; {} for a CPU).

    What counts is the architecture, the compute capability: machine code of another one does not run at all. Among
    the GPU models of one architecture TensorRT's engines, TensorRT-RTX's and Inductor's all run, yet their kernels
    and tiles were chosen on one model, so another gets a warning, as TensorRT itself has it. TensorRT can build for
    more architectures, at a price in speed; this project asks for none of that.
    """
    if program.gpu is None:
        return
    if not here:
        raise ValueError(
            f"{path} runs on a GPU ({program.gpu}), but device=cpu: export here, or with"
            " backend=exported_program for a program that runs on both"
        )
    if program.architecture not in (None, here["architecture"]):
        raise ValueError(
            f"{path} was made on {program.gpu} (compute capability {program.architecture}) and cannot run on"
            f" {here['gpu']} (compute capability {here['architecture']}): {AGAIN}"
        )
    if program.gpu != here["gpu"]:
        log.warning("%s was tuned on %s, and this is %s: %s for full speed", path, program.gpu, here["gpu"], AGAIN)


def check_versions(program: Program, path: Path, *, backend: Backend) -> None:
    """Raise a ValueError if a library's version keeps `backend` from loading the program."""
    here = versions(*backend.VERSIONS)
    for package, rule in backend.VERSIONS.items():
        if package not in program.versions:
            continue
        made, now = program.versions[package], here.get(package, "none")
        fits = {
            "exact": made == now,
            "minor": minor(made) == minor(now),
            "not older": minor(made) <= minor(now),
        }[rule]
        if not fits:
            raise ValueError(
                f"{path} was made with {package} {made}, which does not fit what is installed here, {now}:"
                f" {AGAIN}, or install that version"
            )


def minor(version: str) -> tuple[int, ...]:
    """(2, 14) of "2.14.1+cu130"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
