"""What a backend is: a module that writes a program and loads it again. Those of p2p are in `p2p.deploy.backends`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import nn

from p2p.deploy import backends
from p2p.deploy.manifest import Program
from p2p.deploy.precision import Precision
from p2p.deploy.sizes import Sizes
from p2p.run.trust import trust_in, trusted

Run = Callable[[torch.Tensor], torch.Tensor]  # a loaded program
Export = Callable[[nn.Module, torch.Tensor, Path], Program]  # of a backend, its options set


class Backend(Protocol):
    """What such a module has.

    Attributes:
        VERSIONS: how the version of a distribution that is installed must compare with the one that a program was
            made with: "exact", "minor" (equal major and minor) or "not older" (nor is its minor version). What is not
            named may differ.
    """

    VERSIONS: Mapping[str, Literal["exact", "minor", "not older"]]

    def unavailable(self) -> str | None:
        """Why nothing can be exported here, as half a sentence; None if it can."""

    def export(
        self,
        generator: nn.Module,
        example: torch.Tensor,
        folder: Path,
        *,
        precision: Precision | None = None,
        min_batch: int = 1,
        max_batch: int | None = None,
        sizes: Sizes | None = None,
    ) -> Program:
        """Write a file into the empty `folder`, and say how to feed it. A backend may have more options than these.

        Args:
            generator: in eval mode, float32, on the CPU; it stays as it is.
            example: real images, float32 (N, C, H, W) in [-1, 1], or of `rewrite.Frames` uint8 (N, H, W, C), N at least
                1; fixes all but the batch.
            folder: there, and empty.
            precision: "fp32", "bf16" or "fp16"; None: the backend's own choice.
            min_batch: the smallest batch that the program takes.
            max_batch: the largest; None: the backend's own choice, or any. If it equals min_batch, the program takes
                only that batch size, and may be faster.
            sizes: heights and widths that it takes; not given where it takes those of the example alone.

        Raises:
            ValueError: it cannot be exported here, or not with these options.
        """

    def load(self, program: Program, folder: Path, *, device: torch.device) -> Run:
        """What `export` has written there, as a function on `device` of what `Program.dtype` says.

        Raises:
            ValueError: the file is damaged or does not run here; and later, for other inputs.
            Exception: whatever a library raises, which `p2p.deploy.engine.load_program` makes a sentence of.
        """


def names() -> list[str]:
    """The backends of p2p, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(backends.__path__))


def find(name: str) -> Backend:
    """The backend of that name; with a dot in it, a module of another package, which is imported.

    Raises:
        ImportError: there is none.
        ValueError: the module lacks what a `Backend` has.
    """
    module = importlib.import_module(name if "." in name else f"{backends.__name__}.{name}")
    lacking = [part for part in ("VERSIONS", "unavailable", "export", "load") if not hasattr(module, part)]
    if lacking:
        raise ValueError(f"the backend {name} has no {' and no '.join(lacking)}: see p2p.deploy.backend.Backend")
    return module


def check_trusted(name: str, asked_by: object) -> None:
    """Raise a ValueError if `find` would import a module that nobody has allowed: an artifact can come from anyone."""
    if "." in name and not trusted(name):
        raise ValueError(
            f"{asked_by} needs the backend {name}, which is not of p2p and would be imported: if you trust it, set"
            f" {trust_in(name)} in the environment"
        )
