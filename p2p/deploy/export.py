"""Export a trained generator to a folder that runs without the code of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from p2p.batch import from_frames, to_frames
from p2p.data.pairs import Direction
from p2p.data.reading import Reading, facts_of_readings
from p2p.data.transforms.sizing import Preprocess
from p2p.deploy import artifact, cache, rewrite
from p2p.deploy.accuracy import check, psnr_db, reference_outputs, summary
from p2p.deploy.backend import Export
from p2p.deploy.engine import load_engine
from p2p.deploy.manifest import Manifest
from p2p.deploy.sizes import Sizes
from p2p.deploy.stale import facts_of, seen_from
from p2p.image_size import ImageSize, as_setting
from p2p.interop import reference
from p2p.models.finite import first_not_finite
from p2p.models.inference_view import inference_view
from p2p.system.atomic import folder_beside, sweep
from p2p.system.digest import sha256


def load_weights(
    network: nn.Module, checkpoint: Path, *, part: str = "generator", weights: Literal["trained", "ema"] = "trained"
) -> None:
    """Fill the generator, or another `part` of the model, with a checkpoint's weights, in place.

    A checkpoint is one of train.py or, by its suffix .pth, a file of pytorch-CycleGAN-and-pix2pix.

    Args:
        weights: "trained", or "ema" for their average (`p2p.training.callbacks.ema`).

    Raises:
        ValueError: no such file, not a checkpoint of this project, one of another network, one without average, or
            weights that are not finite.
    """
    if weights not in ("trained", "ema"):
        raise ValueError(f"weights={weights} is not known: use trained or ema")
    if checkpoint.suffix == ".pth":
        if weights == "ema":
            raise ValueError(f"{checkpoint} holds no averaged weights: use weights=trained")
        reference.load(network, reference.read(checkpoint), checkpoint)
        check_finite(network, checkpoint)
        return
    try:
        record = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        prefix = f"{part}."
        trained = {k.removeprefix(prefix): v for k, v in record["state_dict"].items() if k.startswith(prefix)}
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {checkpoint}: train first, with the same name=") from None
    except Exception as error:  # whatever a foreign or damaged file makes the unpickler say
        raise ValueError(f"{checkpoint} is not a checkpoint of p2p, or is damaged") from error
    if weights == "ema" and "ema" not in record:
        raise ValueError(f"{checkpoint} holds no averaged weights: train with callbacks=ema, or use weights=trained")
    try:
        network.load_state_dict(record["ema"][part] if weights == "ema" else trained)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} holds another {part} than the run's train.yaml describes") from error
    check_finite(network, checkpoint)


def check_finite(network: nn.Module, checkpoint: Path) -> None:
    """Raise a ValueError if a weight or a buffer is NaN or infinite."""
    bad = first_not_finite(network.state_dict())
    if bad is not None:
        raise ValueError(
            f"{checkpoint} holds weights that are not finite ({bad}), from a training that has failed: use an earlier"
            " checkpoint, such as ckpt_path=best, or train again with a lower optimizer.lr"
        )


def export(
    generator: nn.Module,
    images_NCHW: torch.Tensor,
    folder: Path,
    *,
    backend: Export,
    norm_stats: Literal["instance", "running"],
    direction: Direction,
    readings: tuple[Reading, Reading] | None = None,
    preprocess: Preprocess = "resize_and_crop",
    multiple: int | None = None,
    image_size: ImageSize | None = None,
    stride: int | None = None,
    sizes: Sizes | None = None,
    checkpoint: Path,
    checkpoint_facts: dict[str, str | int] | None = None,
    device: torch.device,
    names: list[str] | None = None,
    example_NCHW: torch.Tensor | None = None,
    frames: bool = False,
    min_psnr: float = 40.0,
    cache_dir: Path | None = None,
) -> Manifest:
    """Export, load back, compare with fp32 eager, and only then put the folder in its place.

    Args:
        generator: float32, on the CPU.
        images_NCHW: real inputs, float32 (N, C, H, W) in [-1, 1], to compare with.
        folder: the artifact; one that is there is replaced at the very end, see `p2p.deploy.artifact`.
        backend: writes the program, see `p2p.deploy.backend.Backend.export`.
        norm_stats: "instance" or "running".
        readings: of inputs and targets, for the manifest; None: pictures.
        direction, preprocess, multiple, image_size, stride, checkpoint: for the manifest; image_size None: the images'.
        sizes: heights and widths that the program takes; None: those of the images alone.
        checkpoint_facts: `facts_of` it from before its weights were read; None: as it is now.
        device: where the program is to run.
        names: of the images, for the manifest and for errors; None: their numbers.
        example_NCHW: other real inputs, for a backend that fits its program to some; None: the same.
        frames: make a program that takes and gives uint8 (N, H, W, C), see `p2p.deploy.rewrite.Frames`. It is compared
            on images that are rounded to 8 bits before; the rounding of its outputs counts, and allows 58.9 dB.
        min_psnr: dB that the worst image must reach.
        cache_dir: of the build cache, see `p2p.deploy.cache.build`; None: none.

    Raises:
        ValueError: the folder holds something else than an artifact, an output is too far from fp32, or the program
            does not load; no artifact is left, and an older one stays as it was.
    """
    folder = artifact.place_for(folder)
    if frames:
        images_NCHW = from_frames(to_frames(images_NCHW))
    view = inference_view(generator, norm_stats=norm_stats)
    expected = reference_outputs(view, images_NCHW)
    network = rewrite.fold_batch_norm(rewrite.fold_resize(view))
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    with folder_beside(folder) as new:
        example = images_NCHW if example_NCHW is None else example_NCHW
        if frames:
            network, example = rewrite.Frames(network), to_frames(example)
        if sizes is not None:
            # Anew, and not around the config's partial, of which the build cache takes name and arguments.
            options = getattr(backend, "keywords", {}) | {"sizes": sizes}
            backend = partial(getattr(backend, "func", backend), **options)
        made = cache.build(backend, network, example, new, device=device, cache_dir=cache_dir)
        program = made.program
        facts: dict[str, Any] = {
            "program": program,
            "program_sha256": sha256(new / program.file),
            "input_shape": list(images_NCHW.shape[1:]),
            "output_shape": list(expected.shape[1:]),
            "norm_stats": norm_stats,
            "direction": direction,
            **({} if readings is None else facts_of_readings(*readings)),
            "preprocess": preprocess,
            "multiple": multiple,
            "image_size": image_size or as_setting(*images_NCHW.shape[2:]),
            "stride": stride,
            "checkpoint": seen_from(folder, checkpoint),
            **(checkpoint_facts or facts_of(checkpoint)),
            "built": made.built,
            "build_seconds": made.seconds,
        }
        Manifest(**facts, psnr_db={}).save(new)
        outputs = _outputs(new, images_NCHW, device=device)
        figures = summary(psnr_db(outputs, expected), names or list(map(str, range(len(images_NCHW)))))
        check(figures, min_psnr=min_psnr)
        manifest = Manifest(**facts, psnr_db=figures)
        manifest.save(new)
        artifact.put(new, folder)
    return manifest


def _outputs(folder: Path, images_NCHW: torch.Tensor, *, device: torch.device) -> torch.Tensor:
    """What the artifact makes of the images. Its program is freed in the end: what it keeps is then in the folder."""
    engine = load_engine(folder, device=device)
    return torch.cat([engine(images).cpu() for images in images_NCHW.split(engine.manifest.program.min_batch)])
