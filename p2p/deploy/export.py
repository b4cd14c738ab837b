"""From a trained generator to a folder that runs without it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from p2p.deploy.engine import load_engine
from p2p.deploy.manifest import Manifest, Program, sha256
from p2p.deploy.rewrite import inference_view
from p2p.interop import reference

PSNR_CEILING = 120.0  # dB, for images that do not differ at all


def load_weights(
    network: nn.Module, checkpoint: Path, *, part: str = "generator", weights: Literal["trained", "ema"] = "trained"
) -> None:
    """Fill the generator, or another `part` of the model, with a checkpoint's weights, in place.

    A checkpoint is one of train.py or, by its suffix .pth, a file of the reference.

    Args:
        weights: "trained", or "ema" for their average (`p2p.callbacks.ema`).

    Raises:
        ValueError: no such file, not a checkpoint of this project, one of another network, or one without average.
    """
    if weights not in ("trained", "ema"):
        raise ValueError(f"weights={weights} is not known: use trained or ema")
    if checkpoint.suffix == ".pth":
        if weights == "ema":
            raise ValueError(f"{checkpoint} holds no averaged weights: use weights=trained")
        reference.load(network, reference.read(checkpoint), checkpoint)
        return
    try:
        record = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        prefix = f"{part}."
        trained = {k.removeprefix(prefix): v for k, v in record["state_dict"].items() if k.startswith(prefix)}
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {checkpoint}: run train.py first, with the same name=") from None
    except Exception as error:  # whatever a foreign or damaged file makes the unpickler say
        raise ValueError(f"{checkpoint} is not a checkpoint of train.py, or is damaged") from error
    if weights == "ema" and "ema" not in record:
        raise ValueError(f"{checkpoint} holds no averaged weights: train with callbacks=ema, or use weights=trained")
    try:
        network.load_state_dict(record["ema"][part] if weights == "ema" else trained)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} holds another {part} than the run's train.yaml describes") from error


def export(
    generator: nn.Module,
    images_NCHW: torch.Tensor,
    folder: Path,
    *,
    backend: Callable[[nn.Module, torch.Tensor, Path], Program],
    norm_stats: str,
    direction: str,
    preprocess: str = "resize_and_crop",
    multiple: int | None = None,
    checkpoint: Path,
    device: torch.device,
    min_psnr: float = 40.0,
) -> Manifest:
    """Export, load back, compare with fp32 eager, and only then put the folder in its place.

    Args:
        generator: float32, on the CPU.
        images_NCHW: real inputs, float32 (N, C, H, W) in [-1, 1], to compare with.
        folder: the artifact; one that is there is replaced at the very end.
        backend: writes the program, see `p2p.deploy.exported_program.export`.
        norm_stats: "instance" or "running".
        direction, preprocess, multiple, checkpoint: for the manifest.
        device: where the program is to run.
        min_psnr: dB that the worst image must reach.

    Raises:
        ValueError: an output is too far from fp32; no artifact is left.
    """
    view = inference_view(generator, norm_stats=norm_stats)
    with torch.inference_mode():
        # On the CPU and before the backend gets the network: on GPUs "fp32" convolutions round to TF32.
        expected = torch.cat([view(image[None]) for image in images_NCHW])
    staging = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        program = backend(view, images_NCHW, staging)
        facts = {
            "program": program,
            "program_sha256": sha256(staging / program.file),
            "input_shape": list(images_NCHW.shape[1:]),
            "output_shape": list(expected.shape[1:]),
            "norm_stats": norm_stats,
            "direction": direction,
            "preprocess": preprocess,
            "multiple": multiple,
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": sha256(checkpoint),
        }
        Manifest(**facts, psnr_db={}).save(staging)
        engine = load_engine(staging, device=device)
        psnr = psnr_db(torch.cat([engine(image[None]).cpu() for image in images_NCHW]), expected)
        worst = psnr.min().item()
        if not worst >= min_psnr:  # also catches NaN
            raise ValueError(
                f"the exported program is too far from fp32: {worst:.1f} dB PSNR on its worst validation image, where"
                f" min_psnr={min_psnr:g} is asked for: choose another backend or backend.precision"
            )
        manifest = Manifest(**facts, psnr_db={"mean": psnr.mean().item(), "worst": worst, "images": len(psnr)})
        manifest.save(staging)
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def psnr_db(images_NCHW: torch.Tensor, expected_NCHW: torch.Tensor) -> torch.Tensor:
    """PSNR of each image in dB for values in [-1, 1], at most 120: float32 (N,)."""
    error = (images_NCHW.double() - expected_NCHW.double()).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4.0 / error)).clamp(max=PSNR_CEILING).float()
