"""Train pix2pix on pairs of images, export its generator, and translate images with it; docs/api.md shows how.

Nothing heavy is imported here: each function imports what it needs when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from omegaconf import DictConfig

    from p2p.api.translator import Translator
    from p2p.commands.results import Exported, Trained, Translated

__all__ = ["__version__", "compose", "export", "infer", "load", "train"]
__version__ = "0.2.0"


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    checkpoint: Literal["last", "best"] | None = None,
    image_size: int | Sequence[int] | None = None,
    direction: Literal["AtoB", "BtoA"] | None = None,
) -> Translator:
    """A trained generator, ready to translate images: `translate = p2p.load("runs/mine")`, then `translate(image)`.

    Args:
        path: what to load.

            - The folder of a run, such as runs/mine: the weights of its checkpoint, run by PyTorch in float32, with the
              average of the weights and the `norm_stats` that they were validated with. Its export is not used.
            - A folder that export.py wrote, such as runs/mine/export: its program. No code of training is imported.
            - A checkpoint of train.py: as a run.
            - A .safetensors of `p2p to-safetensors`, or "emoji", the model that p2p ships: by PyTorch in float32.
            - A .pth file of pytorch-CycleGAN-and-pix2pix, such as latest_net_G.pth: as its test.py runs it at batch 1.

        device: "cpu", "cuda", "cuda:1" or a torch.device; None: a GPU if there is one, else the CPU.
        checkpoint: only for a run: which of its checkpoints; None: "last".
        image_size: only for a .pth: side in pixels, or (height, width), that images are resized to; None: 256, or the
            size that its U-Net reduces to 1x1.
        direction: only for a .pth: which side of an A|B pair is its input, for `Translator.direction`; None: "AtoB".

    Raises:
        ValueError: nothing of the kind is there, it is damaged, it does not run on the device, or an argument does
            not suit it; one sentence that says which.
    """
    from p2p.api.load import load

    return load(path, device=device, checkpoint=checkpoint, image_size=image_size, direction=direction)


def train(overrides: Sequence[str] | None = None) -> Trained:
    """Train as `p2p train` does: `p2p.train(["name=mine", "data=folder", "data.root=pairs"])`.

    Args:
        overrides: settings as on the command line, without a shell's quotes.

    Returns:
        The run's folder and its scores.

    Raises:
        ValueError: a mistake for which the command line prints one sentence; the message is that sentence.
        KeyboardInterrupt: Ctrl-C. The step was finished and saved; `ckpt_path=last` continues the run.
    """
    from p2p.api.commands import run

    return run("train", overrides)


def export(overrides: Sequence[str] | None = None) -> Exported:
    """Export a trained generator as `p2p export` does: `p2p.export(["name=mine"])`; see `train`."""
    from p2p.api.commands import run

    return run("export", overrides)


def infer(overrides: Sequence[str] | None = None) -> Translated:
    """Translate files as `p2p infer` does: `p2p.infer(["name=mine", "input=photos", "batch_size=8"])`; see `train`.

    For images in memory use `load`.
    """
    from p2p.api.commands import run

    return run("infer", overrides)


def compose(
    overrides: Sequence[str] | None = None, *, command: Literal["train", "export", "infer", "serve"] = "train"
) -> DictConfig:
    """The settings that a command would use, after all checks. Nothing else is done, and no folder is made.

    Args:
        overrides: settings as on the command line, without a shell's quotes.
        command: the command whose settings these are.

    Returns:
        The whole config, as `p2p train --cfg job` prints it. References in it are resolved when they are read.

    Raises:
        ValueError: a setting is not valid; one sentence that says which, and what to do.
    """
    from p2p.api.commands import compose

    return compose(overrides, command=command)
