"""The generator of the inference benchmarks, as a module and as an engine."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from benchmarks import inputs
from p2p.codecs.pillow import decode
from p2p.data.images import read_input
from p2p.data.pairs import Pair
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.engine import Engine, load_engine
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet


def make_network(image_size: int, *, fit: int = 0) -> UNet:
    torch.manual_seed(0)
    network = UNet(image_size=image_size)
    initialize(network)
    if fit:
        inputs.fit(network, steps=fit, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return network.eval()


def make_engine(
    folder: Path,
    network: UNet,
    pairs: list[Pair],
    *,
    image_size: int,
    backend: str = "auto",
    max_batch: int | None = None,
) -> Engine:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transform = Torchvision(image_size=image_size)
    images = torch.stack([transform.eval(read_input(pair, decode)) for pair in pairs[:4]])
    checkpoint = folder / "initial"
    checkpoint.touch()

    def build(network, example_NCHW, folder):
        module = importlib.import_module("p2p.deploy.auto" if backend == "auto" else f"p2p.deploy.backends.{backend}")
        return module.export(network, example_NCHW, folder, max_batch=max_batch)

    facts = {"norm_stats": "running", "direction": "AtoB", "checkpoint": checkpoint, "device": device}
    export(network, images, folder / backend, backend=build, min_psnr=30.0, **facts)
    return load_engine(folder / backend, device=device)
