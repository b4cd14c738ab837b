"""The GPUs of this machine, as the driver tells: without torch, whose import takes seconds."""

from __future__ import annotations

import ctypes
import os

ADDRESS = 32  # bytes of a PCI address, with room


def gpu_addresses() -> list[str]:
    """The PCI address of each GPU that CUDA_VISIBLE_DEVICES leaves, in CUDA's order; none without a driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device, address = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(ADDRESS)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found = []
    for number in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), number)
        failed = cuda.cuDeviceGetPCIBusId(address, ADDRESS, device)
        found.append("" if failed else address.value.decode())
    return found


def one_gpu(number: int) -> dict[str, str]:
    """The environment of a process that is to see that GPU alone, by its number among those that this one sees."""
    seen = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return {"CUDA_VISIBLE_DEVICES": seen[number] if seen else str(number)}
