"""Recognize a GPU whose memory is full or that has failed, and say what to do."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

# As torch, CUDA, cuBLAS, cuDNN, TensorRT and ONNX Runtime put it.
FULL = re.compile(
    r"out of memory|OutOfMemory|_ALLOC(?:ATION)?_FAILED|(?:CUBLAS|CUDNN)_STATUS_NOT_INITIALIZED"
    r"|cudaErrorMemoryAllocation"
    r"|GPU memory .* could not be allocated"
    r"|Failed to allocate memory for requested buffer"
)
FAILED = re.compile(
    r"(?:CUDA|Triton) (?:driver )?error(?: \[CUDA\])?: (.+)|Cuda Runtime \(([^()]+)\)"
    r"|((?:CUBLAS|CUDNN)_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR))",
    re.IGNORECASE,
)
T = TypeVar("T")
MISUSED = re.compile(r"captur|invalid (?:argument|configuration|device ordinal|resource handle)")  # a bug, not the GPU


class TooSmall(RuntimeError):
    """The GPU's memory, for the least that a command can do with it; the message is the sentence for the user."""


def memory_full(error: BaseException) -> str | None:
    """What a library said of the GPU's memory, which was full, here or in what the error came from; else None."""
    return next((str(each) for each in _chain(error) if _says_full(each)), None)


def failure(error: BaseException) -> str | None:
    """Why the GPU has failed, in CUDA's words, after which no call of this process reaches it; None for another error.

    Such as a kernel that read where it may not, a memory error, or a GPU that is lost.
    """
    for each in _chain(error):
        if isinstance(each, RuntimeError) and not _says_full(each) and (found := FAILED.search(str(each))):
            reason = next(filter(None, found.groups())).strip()
            return None if MISUSED.search(reason) else reason
    return None


def of_gpu(error: BaseException) -> bool:
    """Whether it is the GPU's state, so that another program or setting would fail as well."""
    return memory_full(error) is not None or failure(error) is not None


def explain(error: BaseException, *, go_on: str = "") -> str | None:
    """The sentence for a user where a GPU is the reason; None elsewhere.

    Args:
        go_on: how the command goes on from where it was.
    """
    if isinstance(error, TooSmall):
        return str(error)
    if (said := memory_full(error)) is not None:
        return (
            f"the GPU's memory is full{in_numbers(said)}: use a smaller batch_size or image_size, or end other"
            " programs that use this GPU"
        )
    if (reason := failure(error)) is not None:
        return (
            f"the GPU failed ({reason}), and every file that was written is complete: look at nvidia-smi, then run the"
            f" command again{go_on}; with CUDA_LAUNCH_BLOCKING=1 HYDRA_FULL_ERROR=1 before it you see which call fails"
        )
    return None


def in_numbers(said: str) -> str:
    """How much was needed, free and held by whom, in brackets; nothing where it is not said as torch does."""
    size = r"([\d.]+ [KMG]?i?B|[\d.]+ bytes)"
    sums = re.search(rf"Tried to allocate {size}.*?total capacity of {size} of which {size} is free", said)
    if sums is None:
        return ""
    needed, total, free = sums.groups()
    mine = re.search(rf"this process has {size} memory in use", said)
    held = f", {mine[1]} held by this program" if mine else ""
    others = _bytes(total) - _bytes(free) - _bytes(mine[1]) if mine else 0
    held += f", {others / 2**30:.1f} GiB by others" if others > 2**29 else ""
    return f" ({needed} more were needed, {free} of {total} are free{held})"


def release_memory() -> None:
    """Give back what nobody uses any more. Call it when the exception, whose frames hold tensors, is gone."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def or_say_what_fits(work: Callable[[], T], *, setting: str, size: int, attempt: Callable[[int], object] | None) -> T:
    """Return what `work` does; where the GPU's memory does not hold it, try half the size and so on, and say what fits.

    Args:
        setting: that `size` is the value of.
        attempt: does with a smaller size what takes the memory, and leaves nothing behind; None: no trials.

    Raises:
        ValueError: it did not fit; with the largest of those sizes that did.
    """
    try:
        return work()
    except Exception as error:
        if attempt is None or size <= 1 or (said := memory_full(error)) is None or not alone():
            raise
        numbers = in_numbers(said)
    print(f"the GPU's memory is full{numbers}: trying smaller values of {setting}", file=sys.stderr)
    fits = largest_that_fits(size, attempt)
    if fits is None:
        raise ValueError(
            f"the GPU's memory does not hold {setting}={size}{numbers}, and not even {setting}=1, as a trial showed:"
            " use a smaller image_size or network, or end other programs that use this GPU"
        )
    raise ValueError(
        f"the GPU's memory does not hold {setting}={size}{numbers}: {setting}={fits} fits, as a trial showed"
    )


def largest_that_fits(size: int, attempt: Callable[[int], object]) -> int | None:
    """Of half the size, a quarter and so on the first with which `attempt` does not fill the GPU's memory."""
    while size > 1:
        size //= 2
        release_memory()
        try:
            attempt(size)
        except Exception as error:
            if memory_full(error) is None:
                raise
            continue
        return size
    return None


def alone() -> bool:
    """Whether no other processes train with this one, which would wait for them in a trial."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized())


def _says_full(error: BaseException) -> bool:
    if isinstance(error, (OSError, ValueError)):  # with names of files, which may be any
        return False
    return type(error).__name__ == "OutOfMemoryError" or bool(FULL.search(str(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came from; an error that was raised again for one of its own may come from itself."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _bytes(size: str) -> float:
    number, unit = size.split()
    return float(number) * {"bytes": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
