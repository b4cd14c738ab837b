"""Translate images by a model on NVIDIA's Triton Inference Server.

python examples/triton_client.py mine out photos/*.jpg

The model is one that `p2p export triton_repository=models` wrote. This file needs nothing of p2p, only
pip install 'tritonclient[http]' pillow
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image

AT_ONCE = 8  # requests under way, of which the server makes batches
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by channels


def main() -> None:
    """Send each image as a request of its own, and save the answers as PNG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="its name on the server")
    parser.add_argument("output", type=Path, help="a folder for the answers")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--url", default="localhost:8000", help="of the server, host:port")
    chosen = parser.parse_args()

    outputs = named(chosen.images, chosen.output)
    if problem := conflict(chosen.images, outputs):
        parser.error(problem)
    client = triton.InferenceServerClient(chosen.url, concurrency=AT_ONCE)
    config = client.get_model_config(chosen.model)
    height, width, channels = map(int, config["input"][0]["dims"])  # -1, -1: images of any size
    if channels not in MODES:
        parser.error(f"{chosen.model} takes {channels} channels, and image files have 1, 3 or 4")
    chosen.output.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(chosen.images), AT_ONCE):
        paths = chosen.images[first : first + AT_ONCE]
        targets = outputs[first : first + AT_ONCE]
        frames = [read(path, (width, height), mode=MODES[channels]) for path in paths]
        asked = [client.async_infer(chosen.model, [as_input(frame)]) for frame in frames]
        for target, answer in zip(targets, asked, strict=True):
            [frame] = answer.get_result().as_numpy("output_NHWC")
            Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame).save(target)


def named(images: list[Path], folder: Path) -> list[Path]:
    """Where each answer is saved: a.jpg as a.png, but a.jpg and a.webp as a.jpg.png and a.webp.png."""
    stems = Counter(path.stem for path in images)
    return [folder / f"{path.stem if stems[path.stem] == 1 else path.name}.png" for path in images]


def conflict(images: list[Path], outputs: list[Path]) -> str | None:
    """Why the answers cannot be saved there, if they cannot."""
    owners: dict[Path, Path] = {}
    inputs = {path.resolve() for path in images}
    for image, output in zip(images, outputs, strict=True):
        if (other := owners.setdefault(output, image)) is not image:
            return f"the answers to {other} and {image} would both be {output}: send them to two folders"
        if output.resolve() in inputs:
            return f"the answer to {image} would replace an image that is sent, {output}: choose another folder"
    return None


def read(path: Path, size: tuple[int, int], *, mode: str) -> np.ndarray:
    """An image of (width, height): uint8 (H, W, C)."""
    with Image.open(path) as image:
        image = image.convert(mode)
        if -1 not in size and image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        return np.array(image).reshape(image.height, image.width, -1)


def as_input(frame_HWC: np.ndarray) -> triton.InferInput:
    """A batch of one."""
    batch = triton.InferInput("input_NHWC", [1, *frame_HWC.shape], "UINT8")
    batch.set_data_from_numpy(frame_HWC[None])
    return batch


if __name__ == "__main__":
    main()
