"""`p2p serve`: a page to draw on beside the translation, and an HTTP interface."""

from __future__ import annotations

import importlib.util
import logging
import shlex
import warnings
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

import p2p
from p2p.config.shown import shown
from p2p.system.memory import keep_freed_memory
from p2p.system.plural import counted

PACKAGES = {  # of the extra serve, by the module
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}
USUAL_BATCH = {"cuda": 8}  # benchmarks.serving: on a CPU batches did not help
KEPT = 256 << 20  # bytes of freed memory
LOCAL = ("127.", "localhost", "::1")


class Served(NamedTuple):
    """A server that was asked to end.

    Attributes:
        images: that it translated.
        score: the same, for Hydra.
    """

    images: int
    score: float


def main(cfg: DictConfig) -> Served:
    """Load the model, and serve it until a signal."""
    check_installed()
    from p2p.serve import samples
    from p2p.serve.app import app_of
    from p2p.serve.guard import hosts_of
    from p2p.serve.limits import Limits
    from p2p.serve.server import listen, run
    from p2p.serve.service import Service

    quiet_about_clients()
    host, weights = str(cfg.host), str(cfg.weights)
    hosts = hosts_of(host, cfg.hosts)
    limits = Limits(**{key: cfg[key] for key in Limits.__dataclass_fields__})
    with listen(host, cfg.port) as listening:
        keep_freed_memory(KEPT)
        translator = p2p.load(
            weights,
            device=None if cfg.device == "auto" else cfg.device,
            checkpoint=cfg.checkpoint,
            image_size=OmegaConf.to_container(cfg)["image_size"],
            direction=cfg.direction,
        )
        warm_up(translator)
        max_batch = cfg.max_batch or USUAL_BATCH.get(translator.device.type, 1)
        frames = samples.frames_of(translator, samples.found(translator, cfg.samples))
        facts = samples.facts(
            translator,
            Path(weights).name if Path(weights).is_absolute() else weights,
            palette=samples.palette(cfg.palette, frames),
            count=len(frames),
        )
        made: list[Service] = []

        def service() -> Service:
            made.append(Service(translator, limits, max_batch=max_batch, max_wait_s=cfg.max_wait_ms / 1000))
            return made[0]

        def ready() -> None:
            port = listening.getsockname()[1]
            if not host.startswith(LOCAL):
                print(
                    f"host={host}: everybody who reaches this machine can use the server; it has no password and no TLS"
                )
            print(
                f"{shown(weights)}: http://{f'[{host}]' if ':' in host else host}:{port} (POST /translate: see /docs)",
                flush=True,
            )
            print("Ctrl-C ends it", flush=True)

        app = app_of(service, facts=facts, samples=[samples.png(frame) for frame in frames], hosts=hosts)
        run(app, listening, timeout_s=limits.timeout_s, ready=ready)
    images = made[0].metrics.translated()
    print(f"ended: {counted(images, 'image')} translated")
    return Served(images, images)


def quiet_about_clients() -> None:
    """Keep out of the log what libraries say of a damaged image or form; the client is told."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def warm_up(translator: p2p.Translator) -> None:
    """Translate one image: the first one takes longer, by what libraries load and choose."""
    import numpy as np

    labels = translator.readings and translator.readings[0].labels
    translator(np.zeros((*translator.tile, translator.input_shape[0] if labels is None else 1), np.uint8))


def check_installed() -> None:
    """Raise a ValueError that names the packages that are missing."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        names = shlex.join(missing)
        raise ValueError(
            f"p2p serve needs the packages of the extra serve, which are not installed: pip install {names}"
        )
