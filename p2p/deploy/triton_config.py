"""config.pbtxt: how NVIDIA's Triton Inference Server serves a model, as text.

Source: model_config.proto and docs/user_guide/model_configuration.md of the server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

DELAY_US = 1000  # how long a request waits for others to make a batch with
HEAD = "# Written by p2p export. A file that was changed is not replaced by the next export, which says so."


class Tensor(NamedTuple):
    """An input or an output.

    Attributes:
        name: as the model's file calls it.
        dtype: a name in torch, such as "uint8".
        dims: without the batch; -1 for any.
    """

    name: str
    dtype: str
    dims: Sequence[int]


TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16"}


def head(name: str, platform: str, taken: Tensor, given: Tensor, *, max_batch: int) -> str:
    """What every config begins with."""
    return f"""{HEAD}
name: {json.dumps(name)}
platform: "{platform}"
max_batch_size: {max_batch}
input {{ {_tensor(taken)} }}
output {{ {_tensor(given)} }}
"""


def batching(max_batch: int) -> str:
    """Requests that arrive together are one batch; it starts at once when it has a preferred size."""
    if max_batch == 1:
        return ""
    preferred = [2**power for power in range(2, max_batch.bit_length()) if 2**power < max_batch] + [max_batch]
    return f"dynamic_batching {{ preferred_batch_size: {preferred} max_queue_delay_microseconds: {DELAY_US} }}\n"


def instances(kind: str) -> str:
    """One instance on each GPU, or on the CPU; `kind` is "KIND_AUTO", "KIND_GPU" or "KIND_CPU"."""
    return f"instance_group {{ count: 1 kind: {kind} }}\n"


def warmup(taken: Tensor, image: Sequence[int], *, max_batch: int) -> str:
    """A smallest and a largest batch of zeros before the first request, so that it does not wait for allocations."""
    value = f"data_type: {TYPES[taken.dtype]} dims: {[*image]} zero_data: true"
    inputs = f"inputs {{ key: {json.dumps(taken.name)} value {{ {value} }} }}"
    return "".join(
        f'model_warmup {{ name: "batch of {size}" batch_size: {size} {inputs} }}\n' for size in sorted({1, max_batch})
    )


def steps(models: Sequence[tuple[str, Tensor, Tensor]], taken: Tensor, given: Tensor) -> str:
    """An ensemble: models one after another, each with its input and output, from `taken` to `given`."""
    between = [taken.name, *(f"after_{name}" for name, *_ in models[:-1]), given.name]
    lines = [
        f"  step {{ model_name: {json.dumps(name)} model_version: -1"
        f" input_map {{ key: {json.dumps(own.name)} value: {json.dumps(before)} }}"
        f" output_map {{ key: {json.dumps(its.name)} value: {json.dumps(after)} }} }}"
        for (name, own, its), (before, after) in zip(models, pairwise(between), strict=True)
    ]
    return "\n".join(["ensemble_scheduling {", *lines, "}", ""])


def parameter(key: str, value: str) -> str:
    """Text that the server passes on to those who ask for the config."""
    return f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"


def _tensor(tensor: Tensor) -> str:
    return f"name: {json.dumps(tensor.name)} data_type: {TYPES[tensor.dtype]} dims: {[*tensor.dims]}"
