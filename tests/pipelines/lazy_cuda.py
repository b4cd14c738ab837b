"""A stand-in for CUDA that does nothing before it must, on the CPU: what only happens to work on a GPU goes wrong.

A stream is a queue, of which somebody's wait does as much as it needs and, by chance, more. Whatever aten does while a
stream is current is queued there, for the addresses that it was given, as on a GPU: it keeps no memory alive. The
default stream does all at once, and so does what makes a view. Memory is the stream's again when the last tensor in it
is gone, and the next one of that stream gets it. Host memory is alive as long as what is queued for it, unlike CUDA's.
"""

import ctypes
import random
import weakref
from collections import defaultdict, deque
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

BLOCK = 1 << 18  # bytes: every tensor's, so that any may get another's
EMPTY = {torch.ops.aten.empty.memory_format, torch.ops.aten.new_empty.default}


class Gpu(TorchDispatchMode):
    """Streams, their memory, and chance: `with Gpu(seed) as gpu:`."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.haste = (0, 0.03, 0.1, 0.5)[seed % 4]
        self.streams, self.free, self.blocks = [], defaultdict(list), set()
        self.default = self.current = Stream(self)

    def step(self, stream=None):
        """Do what is next on a stream, any by default, or what that waits for; returns whether there is something."""
        if stream is None:
            stream = self.random.choice([each for each in self.streams if each.queue] or [self.default])
        while stream.queue and (mark := stream.queue[0][0]) and not mark.passed:
            stream = mark.stream
        if not stream.queue:
            return False
        with self.on(self.default):
            stream.queue.popleft()[1]()
        return True

    def pass_time(self):
        """By chance one stream gets ahead of the others."""
        if self.random.random() < self.haste:
            stream, most = self.random.choice(self.streams), self.random.randint(1, 60)
            while most and self.step(stream):
                most -= 1

    def synchronize(self, device=None):
        while self.step():
            pass

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.current is self.default:
            return func(*args, **kwargs or {})
        if func in EMPTY:
            return self.placed(func(*args, **kwargs or {}))
        args_then, kwargs_then = tree_map_only(torch.Tensor, self.at_address, (args, kwargs or {}))
        aliases = [each.alias_info for each in func._schema.arguments if each.alias_info]
        if any(alias.is_write for alias in aliases):
            self.current.do(lambda: func(*args_then, **kwargs_then))
            return args[0]
        made = func(*args, **kwargs or {})  # of memory as it happens to be: for its shape
        if not aliases:
            made = self.placed(made)
            made_then = self.at_address(made)
            self.current.do(lambda: made_then.copy_(func(*args_then, **kwargs_then)))
        return made

    def placed(self, like):
        """An empty tensor in memory of the current stream: what it freed last."""
        free = self.free[self.current]
        block = free.pop() if free else np.full(BLOCK, 99, np.uint8)
        self.blocks.add(block.ctypes.data)
        memory = block[: like.nbytes]
        weakref.finalize(memory, free.append, block)
        return torch.frombuffer(memory, dtype=like.dtype).as_strided(like.shape, like.stride())

    def at_address(self, tensor):
        """The same memory, which this does not hold."""
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in self.blocks:
            return tensor
        memory = (ctypes.c_uint8 * memory.nbytes()).from_address(memory.data_ptr())
        flat = torch.frombuffer(memory, dtype=tensor.dtype)
        return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


class Stream:
    cuda_stream = 7

    def __init__(self, gpu, device=None):
        self.gpu, self.queue = gpu, deque()  # of an event's mark that is waited for, and what is to be done
        gpu.streams.append(self)

    def do(self, work, after=None):
        if self is self.gpu.default:
            return work()
        self.queue.append((after, work))
        self.gpu.pass_time()

    def record_event(self):
        event = Event(self.gpu)
        event.record(self)
        return event

    def wait_event(self, event):
        self.do(lambda: None, after=event.mark)

    def wait_stream(self, stream):
        self.wait_event(stream.record_event())

    def synchronize(self):
        self.record_event().synchronize()


class Event:
    def __init__(self, gpu, **options):
        self.gpu, self.mark = gpu, None

    def record(self, stream=None):
        stream = stream or self.gpu.current
        mark = self.mark = SimpleNamespace(stream=stream, passed=False)
        stream.do(lambda: setattr(mark, "passed", True))

    def query(self):
        self.gpu.pass_time()
        return self.mark is None or self.mark.passed

    def synchronize(self):
        while self.mark and not self.mark.passed:
            self.gpu.pass_time()
            self.gpu.step(self.mark.stream)

    def elapsed_time(self, other):
        assert self.mark.passed and other.mark.passed
        return 1.0
