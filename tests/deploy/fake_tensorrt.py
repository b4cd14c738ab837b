"""A stand-in for the modules `tensorrt` and `tensorrt_rtx`, with the names and signatures of TensorRT-RTX 1.4's.

Its engines are text such as b"1 4": they take batches of 1 to 4 images (3, 2, 2) in float16 and give their negatives,
by the addresses that they are told. Kernels are the batch sizes that were met, as text.
"""

import ctypes
import sys
import weakref
from types import ModuleType, SimpleNamespace

import torch

SHAPE = (3, 2, 2)
NO_ENGINE = "Error Code 1: Serialization (no magic tag. In readHeader at /_src/runtime.cpp:42)"


def tensor_at(address, batch):
    data = (ctypes.c_uint16 * (batch * 12)).from_address(address)
    return torch.frombuffer(data, dtype=torch.float16).view(batch, *SHAPE)


def install(monkeypatch, name):
    """Put it in the place of `name`. Returns what happened, and what can be set to go wrong."""
    seen = SimpleNamespace(
        compiled=[], freed=[], streams=[], no_context=None, strategy=None, with_kernels=[], serialize_fails=False
    )

    def watched(thing, what):
        weakref.finalize(thing, seen.freed.append, what)
        return thing

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class Kernels:
        def __init__(self):
            self.batches = set()

        def deserialize(self, blob):
            if not blob.startswith(b"kernels "):
                seen.log.log(ILogger.ERROR, "these kernels are of another version")
                return False
            self.batches |= {int(word) for word in blob.split()[1:]}
            return True

        def serialize(self):
            if seen.serialize_fails:
                return None
            return b" ".join([b"kernels", *(b"%d" % batch for batch in sorted(self.batches))])

    class Config:
        kernels = None

        def create_runtime_cache(self):
            return watched(Kernels(), "kernels")

        def set_runtime_cache(self, kernels):
            self.kernels = kernels
            return True

    class Context:
        def __init__(self, least, most, kernels):
            self.range, self.kernels, self.addresses = range(least, most + 1), kernels and weakref.ref(kernels), {}

        def set_input_shape(self, name, shape):
            assert name == "x" and shape[1:] == SHAPE and type(shape) is tuple
            self.batch = shape[0]
            return self.batch in self.range

        def get_tensor_shape(self, name):
            assert name == "output0"
            return (self.batch, *SHAPE)

        def set_tensor_address(self, name, address):
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            seen.streams.append(stream)
            kernels = self.kernels().batches if self.kernels else set(self.range)
            if self.batch not in kernels:
                seen.compiled.append(self.batch)
                kernels.add(self.batch)
            tensor_at(self.addresses["output0"], self.batch)[:] = -tensor_at(self.addresses["x"], self.batch)
            return True

    class Engine:
        num_io_tensors = 2

        def __init__(self, least, most):
            self.least, self.most = least, most

        def get_tensor_name(self, index):
            return ("output0", "x")[index]

        def get_tensor_mode(self, name):
            return {"x": "input", "output0": "output"}[name]

        def get_tensor_dtype(self, name):
            return "half"

        def get_tensor_shape(self, name):
            return (self.least if self.least == self.most else -1, *SHAPE)

        def get_tensor_profile_shape(self, name, profile):
            assert (name, profile) == ("x", 0)
            return [(batch, *SHAPE) for batch in (self.least, self.most, self.most)]

        def create_runtime_config(self):
            return watched(Config(), "config")

        def create_execution_context(self, config=None):
            if seen.no_context:
                seen.log.log(ILogger.ERROR, seen.no_context)
                return None
            seen.strategy = config and config.dynamic_shapes_kernel_specialization_strategy
            seen.with_kernels.append(config and sorted(config.kernels.batches))
            return watched(Context(self.least, self.most, config and config.kernels), "context")

    class Runtime:
        def __init__(self, log):
            assert isinstance(log, ILogger)
            seen.log = log

        def deserialize_cuda_engine(self, data):
            seen.log.log(ILogger.WARNING, "a warning")
            if not data[:1].isdigit():
                seen.log.log(ILogger.ERROR, NO_ENGINE)
                return None
            return watched(Engine(*map(int, data.split())), "engine")

    module = ModuleType(name)
    module.__spec__ = SimpleNamespace(name=name)  # which find_spec looks for
    module.ILogger, module.Runtime = ILogger, Runtime
    module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none")
    module.float32, module.float16, module.bfloat16 = "float", "half", "bf16"
    monkeypatch.setitem(sys.modules, name, module)
    return seen
