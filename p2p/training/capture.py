"""A training step as one CUDA graph: at batch 1 a GPU runs its kernels in less time than a host needs to launch them.

The rules of recording stand in `p2p.deploy.cuda_graph`; those for a step that trains:
- The first steps run as they are, on the stream that records afterwards: optimizers make their state, cuDNN and
  torch.compile make their trials. They are steps like any other and train.
- Recording runs nothing. Gradients must be made while recording (`zero_grad()` sets them to None), so that they live
  in the graph's memory; weights, optimizer state and BatchNorm's averages are changed in place by each replay.
- A number is recorded, a tensor is read: the learning rate becomes a tensor, and only there. In the optimizer's
  `param_groups` it stays the number that schedules, loggers and checkpoints know; a new one is copied over before the
  next replay.
- Random numbers go on: torch gives the graph the state of its generator at each replay.
- What Python does beside starting kernels happens when recording, once.
- A graph has branches. At batch 1 a kernel fills a fraction of the GPU, so that what needs nothing of each other should
  run at a time: one stream waits for the other where they part and where they meet, and autograd goes back as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Literal, TypeVar

import torch
from lightning.fabric.utilities import rank_zero_only
from torch.optim import Optimizer

from p2p.batch import Batch
from p2p.system.gpu_faults import of_gpu

WARMUPS = 3  # steps before recording: the first makes state and trials, the third shows that nothing is made any more

Losses = dict[str, torch.Tensor]
T = TypeVar("T")


def reason_against(optimizers: list[Optimizer], *, device: torch.device, by_hooks: bool, accumulate: int) -> str | None:
    """Why a step cannot be recorded, as the end of a sentence; None if it can be.

    Args:
        optimizers: those of both networks.
        device: where it trains.
        by_hooks: whether DistributedDataParallel exchanges gradients with other processes. What
            `p2p.training.exchange` does is recorded with the rest.
        accumulate: batches to a step.
    """
    if device.type != "cuda":
        return "the training does not run on an NVIDIA GPU"
    if by_hooks:
        return "DistributedDataParallel exchanges the gradients"
    if accumulate > 1:
        return f"a step takes model.accumulate={accumulate} batches"
    for optimizer in optimizers:
        if not isinstance(optimizer, torch.optim.Adam) or not all(group["fused"] for group in optimizer.param_groups):
            return f"the optimizer is {type(optimizer).__name__} and must be Adam with optimizer.fused=true"
    return None


def capture_if_possible(
    step: Callable[[Batch], Losses],
    *,
    wanted: bool | Literal["auto"],
    optimizers: list[Optimizer],
    device: torch.device,
    by_hooks: bool,
    accumulate: int,
) -> CapturedStep | None:
    """The step, to be captured, or None where that cannot be, or is not wanted; on a GPU "auto" says why not.

    Raises:
        ValueError: it is wanted, and cannot be.
    """
    if wanted is False:
        return None
    against = reason_against(optimizers, device=device, by_hooks=by_hooks, accumulate=accumulate)
    if against is None:
        return CapturedStep(step, optimizers=optimizers, device=device)
    if wanted is True:
        raise ValueError(f"model.capture=true is not possible, because {against}: use model.capture=auto")
    if device.type == "cuda":
        rank_zero_only(print)(f"steps are not captured as a CUDA graph, because {against}")
    return None


class CapturedStep:
    """`step` for batches of one shape, recorded after a few calls and replayed from then on.

    Nothing waits for the GPU but the recording itself. Batches of another shape, such as an epoch's last one that is
    not full, go through `step` as it is. The returned losses are new tensors each time.

    Args:
        step: a batch -> scalars by name, always the same. It trains: zeroes gradients, goes backward and steps the
            optimizers, without waiting for the GPU and without a branch that depends on values.
        optimizers: fused Adam, see `reason_against`.
        device: a CUDA device.

    Attributes:
        side: a stream for what `step` can do `beside` the rest.
    """

    def __init__(self, step: Callable[[Batch], Losses], *, optimizers: list[Optimizer], device: torch.device):
        self._step = step
        self._stream, self.side = (torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2))
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._rates = [torch.tensor(group["lr"], dtype=torch.float32, device=device) for group in self._groups]
        self._rates_now = [group["lr"] for group in self._groups]
        self._batch: Batch | None = None  # the buffers that are recorded
        self._replay: Callable[[], torch.Tensor] | None = None
        self._names: list[str] = []
        self._warmups = 0
        self._told = False

    @property
    def recorded(self) -> bool:
        """Whether steps are replayed by now."""
        return self._replay is not None

    def start_over(self) -> None:
        """Run the next steps as they are, and record again: what is trained has changed."""
        self._replay, self._warmups = None, 0

    def __call__(self, batch: Batch) -> Losses:
        """Train on a batch that is on the device.

        Raises:
            ValueError: the step does something that cannot be recorded.
        """
        if self._batch is None:
            self._batch = _buffers_for(batch)
        if not self._suits(batch):
            return self._step(batch)
        for mine, theirs in zip(_tensors(self._batch), _tensors(batch), strict=True):
            mine.copy_(theirs)
        if self._replay is None and self._warmups < WARMUPS:
            self._warmups += 1
            return warm_up(lambda: self._step(replace(self._batch, names=batch.names)), self._stream)
        self._follow_schedules()
        if self._replay is None:
            with self._rates_as_tensors():
                self._replay = record(self._losses, self._stream)
        losses = self._replay().clone().unbind()
        return dict(zip(self._names, losses, strict=True))

    def _losses(self) -> torch.Tensor:
        losses = self._step(self._batch)
        self._names = list(losses)
        return torch.stack([loss.float() for loss in losses.values()])  # one tensor: one copy after each replay

    def _suits(self, batch: Batch) -> bool:
        shapes = [[tensor.shape for tensor in _tensors(each)] for each in (self._batch, batch)]
        if shapes[0] == shapes[1]:
            return True
        if len(batch) >= len(self._batch) and not self._told:
            self._told = True
            print("images of several sizes: only steps of the first size are replayed as a CUDA graph")
        return False

    @contextmanager
    def _rates_as_tensors(self) -> Iterator[None]:
        """The optimizers as they are to be recorded; afterwards they hold their numbers again."""
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"], group["capturable"] = rate, True
        try:
            yield
        finally:
            for group, number in zip(self._groups, self._rates_now, strict=True):
                group["lr"], group["capturable"] = number, False

    def _follow_schedules(self) -> None:
        for i, group in enumerate(self._groups):
            if group["lr"] != self._rates_now[i]:
                self._rates_now[i] = group["lr"]
                self._rates[i].fill_(group["lr"])


@contextmanager
def beside(work: Callable[[], T], stream: torch.cuda.Stream | None) -> Iterator[T]:
    """Queue `work` on that stream beside what the block queues, and yield what it returns, to be used after the block.

    Without a stream it comes before the block.
    """
    if stream is None:
        yield work()
        return
    now = torch.cuda.current_stream(stream.device)
    stream.wait_stream(now)
    with torch.cuda.stream(stream):
        result = work()
    yield result
    now.wait_stream(stream)


def warm_up(program: Callable[[], Losses], stream: torch.cuda.Stream) -> Losses:
    """Run it on the stream that is going to record."""
    now = torch.cuda.current_stream(stream.device)
    stream.wait_stream(now)
    with torch.cuda.stream(stream):
        losses = program()
    now.wait_stream(stream)
    return losses


def record(program: Callable[[], torch.Tensor], stream: torch.cuda.Stream) -> Callable[[], torch.Tensor]:
    """The program as a graph: a function that replays it and returns the output's buffer, overwritten each time.

    Raises:
        ValueError: it cannot be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    try:
        # "thread_local": a loader's thread pins memory meanwhile, which "global" would forbid.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = program()
    except RuntimeError as error:
        if of_gpu(error):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"the training step cannot be recorded as a CUDA graph ({reason}): use model.capture=false"
        ) from error

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


def _tensors(batch: Batch) -> list[torch.Tensor]:
    values = [getattr(batch, field.name) for field in fields(batch)]
    return [value for value in values if isinstance(value, torch.Tensor)]


def _buffers_for(batch: Batch) -> Batch:
    """Of the same layout in memory, or the networks would take other kernels than without capture."""
    return Batch(batch.names, torch.empty_like(batch.input_NCHW), torch.empty_like(batch.target_NCHW))
