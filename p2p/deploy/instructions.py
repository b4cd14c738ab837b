"""Processor instructions that code compiled for this processor may use, and that another one may lack."""

import re
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
OF_COMPILERS = re.compile(
    r"(abm|adx|aes|amx|asimd|avx|bf16|bmi|f16c|fma|gfni|i8mm|movbe|popcnt|sha|ss?se|sve|v?pclmul|vaes)"
)


def instructions() -> str:
    """Sets of instructions by Linux' names, sorted, with spaces between; elsewhere torch's one word for all."""
    known = re.search(r"^(?:flags|Features)\s*:(.*)", CPUINFO.read_text(), re.MULTILINE) if CPUINFO.exists() else None
    if known is None:
        return torch.backends.cpu.get_cpu_capability()
    return " ".join(sorted(filter(OF_COMPILERS.match, known[1].split())))
