"""Load a generator from an export, a run, a checkpoint, a file of weights, or by the name of a shipped model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from p2p import shipped
from p2p.api.translator import Translator, on
from p2p.data.pairs import check_direction
from p2p.data.reading import Reading, readings_of
from p2p.data.transforms.sizing import Sizing
from p2p.deploy import manifest
from p2p.deploy.artifact import recover
from p2p.deploy.engine import load_engine
from p2p.deploy.export import check_finite, load_weights
from p2p.deploy.sizes import Sizes
from p2p.deploy.stale import replaced_checkpoint
from p2p.image_size import ImageSize, height_and_width
from p2p.interop import reference
from p2p.models.inference_view import inference_view, resolve_norm_stats
from p2p.system.device import find_device
from p2p.system.folders import from_home

ANY = 1 << 20  # pixels of a side: whatever the memory holds
OF = {"checkpoint": "a run's folder", "image_size": "a .pth", "direction": "a .pth"}  # arguments, and what takes them


def load(
    path: str | Path,
    *,
    device: str | torch.device | None,
    checkpoint: Literal["last", "best"] | None,
    image_size: int | Sequence[int] | None,
    direction: Literal["AtoB", "BtoA"] | None,
) -> Translator:
    """See `p2p.load`."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            f"path={path!r} is not valid: give the path of a run, an export, a checkpoint, a .safetensors or a .pth"
        )
    side_or_sides = checked_size(image_size)
    path = from_home(path)
    if not path.exists():
        path = shipped.models().get(str(path), path)
    kind = kind_of(path)
    for key, value in (("checkpoint", checkpoint), ("image_size", image_size), ("direction", direction)):
        if value is not None and kind != OF[key]:
            raise ValueError(f"{key}={value} applies only to {OF[key]}, and {path} is {kind}: leave it out")
    place = find_device("auto" if device is None else str(device))
    if place.type == "cuda" and place.index is None:  # now: torch's current one may be another later
        place = torch.device("cuda", torch.cuda.current_device())
    with on(place):
        match kind:
            case "an export":
                return load_export(path, device=place)
            case "a .pth":
                return load_reference(path, image_size=side_or_sides, direction=direction or "AtoB", device=place)
            case "a .safetensors":
                return load_published(path, device=place)
            case "a checkpoint":
                return load_file_of_run(path, device=place)
        return load_run(path, checkpoint or "last", device=place)


def checked_size(image_size: int | Sequence[int] | None) -> ImageSize | None:
    """Raise a ValueError if it is no number of pixels, nor height and width; a pair becomes a list."""
    if image_size is None or (type(image_size) is int and image_size >= 1):
        return image_size
    if isinstance(image_size, (list, tuple)) and all(type(side) is int and side >= 1 for side in image_size):
        return list(height_and_width(image_size))
    raise ValueError(
        f"image_size={image_size!r} is not valid: use a whole number of pixels, 1 or more, or (height, width)"
    )


def kind_of(path: Path) -> Literal["a run's folder", "an export", "a checkpoint", "a .pth", "a .safetensors"]:
    """What a path leads to, by its place and name.

    Raises:
        ValueError: there is nothing, or something else.
    """
    if not path.exists():
        recover(Path(os.path.realpath(path)))
    if not path.exists():
        raise ValueError(
            f"there is no {path}: give the folder of a run or of an export, the path of a checkpoint, of a .safetensors"
            f" or of a .pth, or the name of a model that p2p ships: {', '.join(shipped.models())}"
        )
    if path.is_dir():
        return "an export" if (path / manifest.FILE).is_file() else "a run's folder"
    if (path.parent / manifest.FILE).is_file():
        raise ValueError(f"{path} is a file of an export: give its folder, {path.parent}")
    if path.suffix == ".safetensors":
        return "a .safetensors"
    return "a .pth" if path.suffix == ".pth" else "a checkpoint"


def load_export(folder: Path, *, device: torch.device) -> Translator:
    """The program that export.py has made; its images are brought to size as infer.py does it."""
    engine = load_engine(folder, device=device)
    replaced = replaced_checkpoint(folder)
    if replaced is not None:  # infer refuses it; here its folder was named
        fact = f"{folder} was made from older weights than {os.path.relpath(replaced)} has now"
        warnings.warn(f"{fact}: export again, or load the run itself", stacklevel=4)  # at the call of p2p.load
    facts, program = engine.manifest, engine.manifest.program
    channels, height, width = facts.input_shape
    return Translator(
        source=folder,
        backend=program.backend,
        precision=program.precision or program.dtype,
        device=device,
        network=engine,
        sizing=Sizing(image_size=facts.image_size, preprocess=facts.preprocess, multiple=facts.multiple),
        input_shape=(channels, height, width),
        output_channels=facts.output_shape[0],
        tile=(height, width),
        stride=facts.stride or facts.multiple or 1,
        sizes=program.sizes,
        min_batch=program.min_batch,
        max_batch=program.max_batch,
        norm_stats=facts.norm_stats,
        direction=facts.direction,
        readings=facts.readings,
    )


def load_run(run_dir: Path, checkpoint: str, *, device: torch.device) -> Translator:
    """The last or the best checkpoint of a run."""
    from p2p.run.checkpoint import find_checkpoint

    if checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint={checkpoint} is not known: use last or best, or load the file by its own path")
    return load_checkpoint(find_checkpoint(run_dir, checkpoint, setting="checkpoint"), run_dir, device=device)


def load_file_of_run(checkpoint: Path, *, device: torch.device) -> Translator:
    """A checkpoint by its own path."""
    from p2p.run.record import record_of

    run_dir = checkpoint.absolute().parent.parent
    if record_of(checkpoint, run_dir) is None:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of p2p, is damaged, or has no train.yaml of its run beside it"
        )
    return load_checkpoint(checkpoint, run_dir, device=device)


def load_checkpoint(checkpoint: Path, run_dir: Path, *, device: torch.device) -> Translator:
    """The generator of a checkpoint, with the weights and `norm_stats` that its run was validated with."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    from p2p.run.record import read_record, validated_weights

    record = read_record(run_dir, checkpoint, instead=", or give the path of an export or of a checkpoint")
    try:
        network = instantiate(record.generator, _convert_="all")
        sizing = instantiate(record.transform, _convert_="all").sizing
    except (InstantiationException, OmegaConfBaseException) as error:
        raise ValueError(f"the settings of {run_dir} make no generator: {error.__cause__ or error}") from error
    load_weights(network, checkpoint, weights=validated_weights(record))
    return by_pytorch(
        network,
        source=checkpoint,
        device=device,
        sizing=sizing,
        channels=(record.data.input_channels, record.data.target_channels),
        norm_stats=resolve_norm_stats(record.norm_stats, batch_size=record.batch_size),
        direction=record.data.direction,
        readings=readings_of(record.data),
    )


def load_reference(path: Path, *, image_size: ImageSize | None, direction: str, device: torch.device) -> Translator:
    """A generator of pytorch-CycleGAN-and-pix2pix, as export.py takes it: trained at batch 1."""
    check_direction(direction)
    weights = reference.read(path)
    found = reference.as_colorization(reference.recognize_generator(weights, path))
    image_size = found.arguments["image_size"] if image_size is None else image_size
    found.check_image_size(image_size, path)
    network = found.network(**found.arguments)
    reference.load(network, weights, path)
    check_finite(network, path)
    return by_pytorch(
        network,
        source=path,
        device=device,
        sizing=Sizing(image_size=image_size, preprocess="resize_and_crop"),
        channels=(found.arguments["in_channels"], found.arguments["out_channels"]),
        norm_stats=resolve_norm_stats("auto", batch_size=1),
        direction=direction,
    )


def load_published(path: Path, *, device: torch.device) -> Translator:
    """A generator in one file, as `p2p to-safetensors` writes it."""
    from p2p.deploy import published

    facts = published.read(path)
    return by_pytorch(
        published.load(path),
        source=path,
        device=device,
        sizing=Sizing(image_size=facts.image_size, preprocess=facts.preprocess, multiple=facts.multiple),
        channels=(facts.input_channels, facts.target_channels),
        norm_stats=facts.norm_stats,
        direction=facts.direction,
        readings=facts.readings,
    )


def by_pytorch(
    network: nn.Module,
    *,
    source: Path,
    device: torch.device,
    sizing: Sizing,
    channels: tuple[int, int],
    norm_stats: Literal["instance", "running"],
    direction: str,
    readings: tuple[Reading, Reading] | None = None,
) -> Translator:
    """A generator that was not exported: any batch, and any size that `sizing` gives.

    Args:
        channels: of the input and of the output.
        readings: of both, see `Translator`.
    """
    stride = getattr(network, "stride", None) or sizing.multiple
    view = inference_view(network, norm_stats=norm_stats).requires_grad_(False).to(device, torch.float32)
    return Translator(
        source=source,
        backend="pytorch",
        precision="float32",
        device=device,
        network=lambda input_NCHW: view(input_NCHW.to(device)),
        sizing=sizing,
        input_shape=(channels[0], None, None),
        output_channels=channels[1],
        tile=sizing.sides,
        stride=stride,
        sizes=Sizes([stride, stride], [*sizing.sides], [ANY, ANY], stride),
        norm_stats=norm_stats,
        direction=direction,
        readings=readings,
    )
