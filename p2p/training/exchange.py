"""What processes that train together exchange: means of gradients and of losses, buffers, and whether to stop.

Nothing here waits on the host, so that a step that exchanges can be recorded in a CUDA graph, and the host can be steps
ahead of the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning import Trainer
from torch import distributed, nn

from p2p.training.each_network import EachNetwork

MESSAGE_BYTES = 32 * 2**20  # enough for the full speed of NVLink, and a seventh of unet_256


def together(trainer: Trainer) -> bool:
    """Whether processes train that have to be asked for an average."""
    return isinstance(trainer.strategy, EachNetwork) and trainer.world_size > 1


@contextmanager
def averaging(network: nn.Module) -> Iterator[None]:
    """Average the gradients of a network, whose backward runs in the block, over all processes.

    A message is sent as soon as the backward has finished MESSAGE_BYTES of gradients, in the order in which it
    finishes them, which is the same in all processes; it travels while the backward goes on. After the block each
    `grad` is the mean.
    """
    means = Means()
    hooks = [each.register_post_accumulate_grad_hook(means.add) for each in network.parameters() if each.requires_grad]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    means.wait()


class Means:
    """Gradients on their way to becoming their means."""

    def __init__(self) -> None:
        self._ready: list[nn.Parameter] = []
        self._sent: list[tuple[distributed.Work, torch.Tensor]] = []

    @torch.no_grad()
    def add(self, parameter: nn.Parameter) -> None:
        """The gradient of this parameter is finished."""
        self._ready.append(parameter)
        if sum(each.grad.nbytes for each in self._ready) >= MESSAGE_BYTES:
            self._send()

    @torch.no_grad()
    def wait(self) -> None:
        """Send what is left, and let the current stream wait for all of it."""
        if self._ready:
            self._send()
        for work, _ in self._sent:
            work.wait()

    def _send(self) -> None:
        gradients = [parameter.grad for parameter in self._ready]
        flat = torch.cat([as_it_lies(gradient) for gradient in gradients])
        self._sent.append((start_average(flat), flat))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(self._ready, gradients, parts, strict=True):
            parameter.grad = part.as_strided(gradient.size(), gradient.stride())  # its mean, once it has come
        self._ready = []


def start_average(flat: torch.Tensor) -> distributed.Work:
    """Begin to put in the place of a tensor its mean over all processes."""
    if distributed.get_backend() == "nccl":
        return distributed.all_reduce(flat, distributed.ReduceOp.AVG, async_op=True)
    return distributed.all_reduce(flat.div_(distributed.get_world_size()), async_op=True)


def ask(yes: bool, device: torch.device) -> Callable[[], bool]:
    """Ask all processes, on whose devices it is asked between two steps; gives what tells whether any has said yes.

    It waits until the device has come so far. Some steps later it has.
    """
    answer = torch.full((1,), float(yes), device=device)
    distributed.all_reduce(answer, distributed.ReduceOp.MAX)
    if device.type != "cuda":
        return lambda: bool(answer)
    here, asked = torch.cuda.Stream(device), torch.cuda.current_stream(device).record_event()

    def hear() -> bool:
        here.wait_event(asked)
        with torch.cuda.stream(here):  # which waits for none of the steps behind the question
            return bool(answer)

    return hear


@torch.no_grad()
def take_buffers_of_first(network: nn.Module) -> None:
    """BatchNorm's averages, which each process keeps of its own batches, become those of the first, which saves."""
    for buffer in network.buffers():
        distributed.broadcast(buffer, src=0)


def as_it_lies(tensor: torch.Tensor) -> torch.Tensor:
    """(numel,), a view of a tensor that lies densely in memory: a channels_last weight is not transposed."""
    return tensor.as_strided((tensor.numel(),), (1,))
