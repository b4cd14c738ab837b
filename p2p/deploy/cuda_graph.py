"""CUDA graphs: record a program's kernels once, then start them all by a single call.

A generator is dozens of short kernels, and for small batches the host needs longer to launch them one by one than
the GPU to run them. A graph is the recorded list of launches, with their arguments, and is launched as a whole.

What may be recorded, by CUDA's rules for stream capture:
- Work on the capturing stream alone, and on streams that wait for it and that it waits for again. No
  synchronization, no copy from or to the host, no shape or branch that depends on a tensor's values.
- Addresses are recorded, not tensors: a replay reads the very input buffer of the recording and writes the very
  output buffer. Hence the copies into the one and out of the other, since the next replay overwrites it.
- Whatever happens once must have happened before: loading kernels, making library handles and their workspaces,
  cuDNN's trials, Triton's launchers. Hence the warm-up, on the stream that records afterwards, because libraries
  keep handles and workspaces by stream. The default stream cannot record at all.
- Memory comes from a pool of the graph's own. All graphs of a program share one pool: they never run at the same
  time, so that each can use what the others need only while they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

MAX_GRAPHS = 16  # input shapes; each graph holds an input, an output and its kernels' arguments
WARMUPS = 3  # the first call compiles and tries, the second may still allocate, the third shows that it has settled


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    input: torch.Tensor
    output: torch.Tensor


class Captured:
    """A program that replays a CUDA graph, one for each shape of its input.

    The first call with a shape records the graph, which takes some tenths of a second, waits for the whole GPU and
    allocates; warm up with the batch sizes that are to come. After `MAX_GRAPHS` shapes, further ones run without.
    cuDNN chooses among its kernels by their measured time, so that another process may choose others and round
    differently; a recorded graph keeps its choice.

    A call takes such a tensor on any device and queues on the current stream a copy into the graph's buffer, which
    also converts the dtype, the graph, and a copy of the output. A source in pinned host memory is read later, in the
    order of that stream: it must not be written to before. The result is a new tensor in the program's dtype on
    `device`, and the caller's alone. Calls may come on different streams, one waits for another; but from one thread
    at a time.

    Args:
        program: float (N, C, H, W) or uint8 (N, H, W, C) on `device` -> the same, by work that may be recorded (see
            above). It must not keep its input.
        device: a CUDA device.
        dtype: what the program takes; None: what the first call with a shape has.
    """

    def __init__(
        self,
        program: Callable[[torch.Tensor], torch.Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ):
        self.program = program
        self._device, self._dtype = device, dtype
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[torch.Size, _Recording] = {}
        self._free = torch.cuda.Event()  # after the last call's work: the buffers may be overwritten

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The program's output."""
        with torch.cuda.device(self._device):
            recording = self._recordings.get(images.shape)
            if recording is None and len(self._recordings) < MAX_GRAPHS:
                recording = self._recordings[images.shape] = self._record(images)
            now = torch.cuda.current_stream(self._device)
            now.wait_event(self._free)
            if recording is None:
                output = self.program(images.to(self._device, self._dtype, non_blocking=True)).clone()
            else:
                recording.input.copy_(images, non_blocking=True)
                recording.graph.replay()
                output = recording.output.clone()
            self._free.record(now)
            return output

    def _record(self, images: torch.Tensor) -> _Recording:
        static = torch.empty(images.shape, dtype=self._dtype or images.dtype, device=self._device)
        static.copy_(images)
        # After the copy, and after earlier calls on other streams: a program may have one workspace for all calls.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._stream.wait_event(self._free)
        graph = torch.cuda.CUDAGraph()
        # Around all: a recording that fails leaves its stream current.
        with torch.cuda.stream(self._stream), _cudnn_trials():
            for _ in range(WARMUPS):
                self.program(static)
            try:
                # "thread_local": other threads go on allocating, which "global" would forbid them.
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    output = self.program(static)
            except RuntimeError:  # such as too little memory, after which a smaller batch may fit
                self._pool = (
                    torch.cuda.graph_pool_handle()
                )  # the allocator thinks that the old one is still recorded to
                # And so does the generator of random numbers, which then refuses to make any, until a recording ends
                # well (seen with torch 2.11, github.com/pytorch/pytorch/issues/171263).
                with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream, capture_error_mode="thread_local"):
                    static.zero_()
                raise
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return _Recording(graph, static, output)


@contextmanager
def _cudnn_trials() -> Iterator[None]:
    """Let cuDNN time its kernels for each convolution that it meets first, and use the fastest of those that add up in
    one order: others may give other last bits at each replay. Once two replays of a test differed on an H200."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark = cudnn.deterministic = True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
