"""A copy of a checkpoint in host memory, which stays as it is while the training goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch


def snapshot(state: Any) -> tuple[Any, Callable[[], None]]:
    """Copy nested containers with all their tensors.

    From a GPU they are copied into page-locked memory, on the current stream: the host does not wait, and the steps
    that follow, which change these tensors in place, come after it. 0.7 GB take some 20 ms, and no memory of the GPU.

    Returns:
        The copy, with the same strides and the same shared objects; and what waits until its tensors are there.
    """
    copies: dict[int, torch.Tensor] = {}
    devices: set[torch.device] = set()

    for tensor in tensors_in(state):
        if id(tensor) not in copies:
            on_gpu = tensor.device.type == "cuda"
            copied = torch.empty_like(tensor, device="cpu", pin_memory=on_gpu, requires_grad=False)
            copies[id(tensor)] = copied.copy_(tensor.detach(), non_blocking=on_gpu)
            devices.update([tensor.device] if on_gpu else [])
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return copy.deepcopy(state, copies), wait


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """All of nested dicts, lists and tuples."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, (dict, list, tuple)):
        for each in state.values() if isinstance(state, dict) else state:
            yield from tensors_in(each)
