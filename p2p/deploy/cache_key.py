"""The name of a build: it depends on everything that determines a compiled program, and on nothing else."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from p2p.deploy.backend import Export
from p2p.deploy.instructions import instructions
from p2p.deploy.manifest import gpu_facts, versions
from p2p.deploy.precision import EIGHT_BITS
from p2p.system.digest import sha256


def key(backend: Export, network: nn.Module, images: torch.Tensor, *, device: torch.device) -> str:
    """SHA-256 over everything that a compiled program follows from, 64 hex digits.

    That is: the network's graph and the bytes of its weights, the backend and its arguments, the size of the images,
    and the images themselves where int8 and fp8 are fitted to them or backend=fastest judges by them; the CPU's
    instructions, the GPU and its driver, the version of Python and of every installed package, and the sources that
    programs are made of: this project's, and those beside a backend of another package. Which packages matter depends
    on the backend, and a build that was not needed costs less than a wrong one.
    """
    target = getattr(backend, "func", backend)  # of the partial that a config makes
    arguments = getattr(backend, "keywords", {})
    facts = {
        "backend": f"{target.__module__}.{target.__qualname__}",
        "arguments": arguments,
        "network": fingerprint(network, images[:1]),
        "image": list(images.shape[1:]),
        "device": device.type,
        "cpu": instructions(),
        "gpu": gpu_facts(device),
        "versions": installed() | versions(),
        "sources": sources(Path(__file__).parent),
        "others": {name: sources_beside(name) for name in _others(target.__module__, *arguments.get("backends") or ())},
    }
    if arguments.get("precision") in EIGHT_BITS or target.__module__ == "p2p.deploy.fastest":
        facts["images"] = hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def installed() -> dict[str, str]:
    """The version of every installed package; of one that is there twice, that which is imported."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        about = distribution.metadata  # which is read anew each time
        if about["Name"]:
            found.setdefault(about["Name"], about["Version"])
    return found


def fingerprint(network: nn.Module, image: torch.Tensor) -> str:
    """SHA-256 over what the network computes: the graph that torch.export sees, and every tensor in it."""
    exported = torch.export.export(network, (image,))
    digest = hashlib.sha256(str(exported.graph).encode())
    for name, tensor in sorted((exported.state_dict | exported.constants).items()):
        assert isinstance(tensor, torch.Tensor)  # the networks here have no other constants
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def sources(folder: Path) -> str:
    """SHA-256 over a folder's Python files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return digest.hexdigest()


def _others(*names: str) -> list[str]:
    """Those of the backends that are modules of other packages."""
    return sorted(name for name in names if "." in name and not name.startswith("p2p."))


def sources_beside(module: str) -> str | None:
    """`sources` of the folder of a module, which may have no version; None where it cannot be found."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:  # of a package that is not there: whoever needs it says so
        return None
    return None if spec is None or spec.origin is None else sources(Path(spec.origin).parent)
