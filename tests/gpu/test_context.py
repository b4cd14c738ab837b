"""The context that is made beside the import of torch."""

import pytest

from tests.gpu.gpu_processes import run

pytestmark = pytest.mark.gpu
PROGRAM = """
from p2p.system.gpus import wake_gpu
wake_gpu("auto")
import ctypes, torch
cuda, active, flags = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_uint()
assert not torch.cuda.is_initialized()
assert not cuda.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) and active.value == 1
print("sum", int(torch.ones(3, device="cuda").sum()))
"""


def test_torch_finds_it():
    assert "sum 3" in run("-c", PROGRAM)
