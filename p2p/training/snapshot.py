"""A copy of a checkpoint in host memory, which stays as it is while the training goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch

KEPT: list[object] = []  # page-locked memory that is not to be freed any more


def snapshot(state: Any) -> tuple[Any, Callable[[], None]]:
    """Copy nested containers with all their tensors.

    From a GPU they are copied into page-locked memory, on the current stream: the host does not wait, and the steps
    that follow, which change these tensors in place, come after it.

    Returns:
        The copy, with the same strides and the same shared objects; and what waits until its tensors are there. Where
        the GPU fails, that raises CUDA's RuntimeError if the failure came before the copy was complete. Call it once
        more before the copy is let go: torch ends the process where it frees page-locked memory of a failed GPU, so
        the copy is kept then.
    """
    copies: dict[int, torch.Tensor] = {}
    devices: set[torch.device] = set()

    for tensor in tensors_in(state):
        if id(tensor) not in copies:
            on_gpu = tensor.device.type == "cuda"
            copied = torch.empty_like(tensor, device="cpu", pin_memory=on_gpu, requires_grad=False)
            copies[id(tensor)] = copied.copy_(tensor.detach(), non_blocking=on_gpu)
            devices.update([tensor.device] if on_gpu else [])
    arrived = {device: torch.zeros(1, dtype=torch.bool, pin_memory=True) for device in devices}
    for device, flag in arrived.items():  # behind the copies: an event of a failed GPU does not say that they are there
        flag.copy_(torch.ones(1, dtype=torch.bool, device=device), non_blocking=True)
    events = [torch.cuda.current_stream(device).record_event() for device in devices]
    streams = [torch.cuda.Stream(device) for device in devices]  # of their own: they disturb no graph that is recorded

    def wait() -> None:
        try:
            for event in events:
                event.synchronize()
            for stream in streams:  # an event that has passed says nothing of the GPU, one that is made does
                stream.record_event()
        except RuntimeError:
            KEPT.append((copies, arrived))
            if not all(arrived.values()):
                raise

    return copy.deepcopy(state, copies), wait


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """All of nested dicts, lists and tuples."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, (dict, list, tuple)):
        for each in state.values() if isinstance(state, dict) else state:
            yield from tensors_in(each)
