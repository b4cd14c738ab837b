"""A generator in one file, to be passed on: weights as safetensors, and in its header what they are to be used with.

Nothing in such a file is code. The class of its network is named, and made if `p2p.run.trust` allows it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p.data.pairs import Direction
from p2p.data.reading import Reading, from_facts
from p2p.data.transforms.sizing import Preprocess
from p2p.deploy import fields
from p2p.deploy.manifest import Manifest, Program
from p2p.deploy.sizes import Sizes
from p2p.image_size import ImageSize, height_and_width, power_of_two_in
from p2p.run.trust import check_record
from p2p.shipped import models
from p2p.system import atomic
from p2p.system.digest import sha256
from p2p.system.folders import from_home

if TYPE_CHECKING:  # torch comes after all that can be checked without it
    import torch
    from torch import nn

    from p2p.deploy.engine import Engine

SUFFIX = ".safetensors"
KEY = "p2p"  # in the header, beside names, shapes and dtypes
READING = ("input_range", "target_range", "labels", "edges", "background")
CHANNELS = fields.whole(1, fields.LARGEST)
RULES: dict[str, fields.Rule] = {
    **{name: fields.MANIFEST[name] for name in ("norm_stats", "direction", "preprocess", "multiple")},
    **{name: fields.MANIFEST[name] for name in ("image_size", "stride", *READING)},
    "generator": lambda value: isinstance(value, dict) and "_target_" in value,
    "input_channels": CHANNELS,
    "target_channels": CHANNELS,
}


class Published(NamedTuple):
    """What the header of such a file says of its generator.

    Attributes:
        generator: `_target_` and arguments of its class, as in a config.
        input_channels, target_channels: of the images.
        norm_stats: "instance" or "running", see `p2p.models.inference_view`.
        direction: which side of a pair was the input.
        preprocess, multiple, image_size: how images are brought to size, see `p2p.data.transforms.torchvision`.
        stride, input_range, target_range, labels, edges, background: see `p2p.deploy.manifest.Manifest`.
    """

    generator: dict[str, Any]
    input_channels: int
    target_channels: int
    norm_stats: Literal["instance", "running"]
    direction: Direction
    preprocess: Preprocess
    multiple: int | None
    image_size: ImageSize
    stride: int | None = None
    input_range: list[float] | None = None
    target_range: list[float] | None = None
    labels: int | None = None
    edges: bool = False
    background: str | None = None

    @property
    def readings(self) -> tuple[Reading, Reading]:
        """How files of inputs and of targets are read."""
        return from_facts((self.input_channels, self.target_channels), self._asdict())


NEEDED = [name for name in Published._fields if name not in Published._field_defaults]


def find(name: str) -> Path:
    """The file that weights=`name` means: one that p2p ships, by its name, or else a path.

    Raises:
        ValueError: there is no such file.
    """
    shipped = models()
    path = shipped.get(name, from_home(name))
    if path.suffix == SUFFIX and path.is_file():
        return path
    use = f"use {', '.join(shipped)}, or the path of a {SUFFIX}"
    raise ValueError(f"weights={name} is not a model that p2p ships, and there is no such {SUFFIX} file: {use}")


def read(path: Path) -> Published:
    """The header, without torch.

    Raises:
        ValueError: the file is none, is damaged, or was not written by `write`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
        if KEY not in header:
            raise ValueError("it holds weights, and does not say of which network")
        facts = json.loads(header[KEY])
        fields.check(facts, RULES)
        if missing := [name for name in NEEDED if name not in facts]:
            raise ValueError(f"it does not say {', '.join(missing)}")
        return Published(**facts)
    except (SafetensorError, OSError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged, or is not a file of p2p to-safetensors ({error}): write it again"
        ) from error


def manifest_of(path: Path) -> Manifest:
    """What infer.py needs to know, as of an exported program."""
    facts, digest = read(path), sha256(path)
    size = [*height_and_width(facts.image_size)]
    stride = facts.stride or facts.multiple or power_of_two_in(facts.image_size)  # which every network of ours takes
    sizes = Sizes([stride, stride], size, [fields.LARGEST // stride * stride] * 2, stride)
    return Manifest(
        program=Program(backend="pytorch", file=path.name, dtype="float32", max_batch=None, versions={}, sizes=sizes),
        program_sha256=digest,
        input_shape=[facts.input_channels, *size],
        output_shape=[facts.target_channels, *size],
        norm_stats=facts.norm_stats,
        direction=facts.direction,
        preprocess=facts.preprocess,
        multiple=facts.multiple,
        image_size=facts.image_size,
        stride=stride,
        **{name: getattr(facts, name) for name in READING},
        checkpoint=path.name,
        checkpoint_sha256=digest,
        psnr_db={},
        created="",
    )


def load(path: Path) -> nn.Module:
    """The network, float32, on the CPU.

    Raises:
        ValueError: the file is damaged, its network is not of p2p, or its weights do not fit it or are not finite.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from p2p.deploy.export import check_finite

    record = OmegaConf.create({"generator": read(path).generator})
    check_record(record, path)
    try:
        network = instantiate(record.generator, _convert_="all")
        network.load_state_dict(load_file(path))  # which copies, and with that converts to float32
    except (InstantiationException, OmegaConfBaseException, SafetensorError, RuntimeError, OSError) as error:
        reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path} does not fit the networks of this version of p2p ({reason}): write it again"
        ) from error
    check_finite(network, path)
    return network


def write(path: Path, network: nn.Module, facts: Published) -> None:
    """Write such a file, atomically: kernels in float16, and the rest, which is small, in float32.

    Raises:
        ValueError: a weight is too large for float16.
    """
    from safetensors.torch import save

    from p2p.models.finite import first_not_finite

    halves = {name: value.half() if value.ndim == 4 else value for name, value in network.state_dict().items()}
    if (large := first_not_finite(halves)) is not None:
        raise ValueError(f"{large} of the generator is too large for float16, in which {path} would hold it")
    atomic.write(path, save({k: v.contiguous() for k, v in halves.items()}, {KEY: json.dumps(facts._asdict())}))


def load_engine(path: Path, *, device: torch.device) -> Engine:
    """The network as infer.py takes it: run by PyTorch, in float32.

    Raises:
        ValueError: see `load`.
    """
    from p2p.deploy.engine import Engine
    from p2p.models.inference_view import inference_view

    manifest = manifest_of(path)
    view = inference_view(load(path), norm_stats=manifest.norm_stats).requires_grad_(False)
    return Engine(manifest=manifest, program=view.to(device), device=device)
