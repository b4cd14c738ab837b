"""What is understood of a GPU's errors, in the words of the libraries, and what is said then."""

import subprocess
import sys
import time

import pytest
import torch

from p2p.config.explain import explain
from p2p.system import gpu_faults
from p2p.system.gpu_faults import failure, in_numbers, largest_that_fits, memory_full, of_gpu, or_say_what_fits
from tests.conftest import ROOT

FULL = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.18 GiB of which 512.00 MiB is"
    " free. Process 4711 has 70.00 GiB memory in use. Including non-PyTorch memory, this process has 8.68 GiB memory in"
    " use. Of the allocated memory 7.90 GiB is allocated by PyTorch, and 200.00 MiB is reserved by PyTorch but"
    " unallocated."
)
ASSERT = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API"
    " call, so the stacktrace below might be incorrect."
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(FULL),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("Unhandled CUDA error: cudaErrorMemoryAllocation out of memory"),
        RuntimeError("[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (Requested size was 9"),
        RuntimeError("IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (out of memory)"),
        Exception("Failed to allocate memory for requested buffer of size 1048576"),
    ],
)
def test_memory_that_is_full(error):
    assert memory_full(error) == str(error) and of_gpu(error) and failure(error) is None
    try:
        try:
            raise error
        except Exception as cause:
            raise ValueError("TensorRT cannot build this") from cause
    except ValueError as wrapped:
        assert memory_full(wrapped) == str(error)
    assert explain(error, "infer").startswith("the GPU's memory is full")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.AcceleratorError(ASSERT, 710), "device-side assert triggered"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), "an illegal memory access"),
        (RuntimeError("CUDA error: unspecified launch failure"), "unspecified launch failure"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "uncorrectable ECC error"),
        (RuntimeError("CUDA driver error: device lost"), "device lost"),
        (
            RuntimeError("enqueueV3: Error Code 1: Cuda Runtime (unspecified launch failure)"),
            "unspecified launch failure",
        ),
        (RuntimeError("Triton Error [CUDA]: misaligned address"), "misaligned address"),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), "busy or unavailable"),
    ],
)
def test_a_gpu_that_failed(error, reason):
    assert reason in failure(error) and of_gpu(error) and memory_full(error) is None
    for command, go_on in (("infer", "skip_existing=true"), ("train", "ckpt_path=last"), ("export", "command again;")):
        sentence = explain(error, command)
        assert sentence.startswith(f"the GPU failed ({failure(error)}), and every file that was written is complete")
        assert go_on in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: operation not permitted when stream is capturing"),
        RuntimeError("CUDA error: invalid argument"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
        ValueError("photos/out of memory.png is damaged"),
        OSError("CUDA error: out of memory"),
    ],
)
def test_what_is_no_fault_of_the_gpu(error):
    assert not of_gpu(error)


def test_the_numbers():
    assert in_numbers(FULL) == (
        " (2.50 GiB more were needed, 512.00 MiB of 79.18 GiB are free, 8.68 GiB held by this program, 70.0 GiB by"
        " others)"
    )
    assert in_numbers(FULL.replace("8.68", "78.60")).endswith("held by this program)")
    assert in_numbers("CUDA error: out of memory") == ""


def trials(most):
    """A piece of work that fits up to a size, and what sizes it was tried with."""
    tried = []

    def attempt(size):
        tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError(FULL)

    return attempt, tried


@pytest.mark.slow
def test_the_size_that_fits(capsys):
    attempt, tried = trials(9)
    with pytest.raises(ValueError, match=r"does not hold batch_size=50 \(2.50 GiB .*: batch_size=6 fits, as a trial"):
        or_say_what_fits(lambda: attempt(50), setting="batch_size", size=50, attempt=attempt)
    assert tried == [50, 25, 12, 6]
    assert "trying smaller values of batch_size" in capsys.readouterr().err
    attempt, tried = trials(0)
    with pytest.raises(ValueError, match="not even batch_size=1, as a trial showed: use a smaller image_size"):
        or_say_what_fits(lambda: attempt(2), setting="batch_size", size=2, attempt=attempt)
    for size, some in ((1, attempt), (8, None)):  # nothing to try
        with pytest.raises(torch.OutOfMemoryError):
            or_say_what_fits(lambda: attempt(8), setting="batch_size", size=size, attempt=some)
    assert or_say_what_fits(lambda: None, setting="batch_size", size=8, attempt=attempt) is None


def test_memory_of_what_failed_is_given_back_before_the_next_trial(monkeypatch):
    """Frames of an exception hold tensors, which would be in the way."""
    alive = []

    class Tensor:
        def __init__(self):
            alive.append(self)

        def __del__(self):
            count.append(-1)

    count = []

    def attempt(size):
        tensor = Tensor()  # noqa: F841 - held by this frame
        alive.clear()
        if size > 2:
            raise torch.OutOfMemoryError(FULL)

    freed = []
    monkeypatch.setattr(gpu_faults, "release_memory", lambda: freed.append(len(count)))
    with pytest.raises(ValueError, match="batch_size=2 fits"):
        or_say_what_fits(lambda: attempt(16), setting="batch_size", size=16, attempt=attempt)
    assert freed == [1, 2, 3]


def test_another_error_of_a_trial_is_not_hidden():
    def attempt(size):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        largest_that_fits(4, attempt)


@pytest.mark.parametrize("full", [False, True])
def test_a_command_whose_gpu_failed_waits_for_no_thread(full):
    """Python joins them when it ends, and one may wait for the GPU."""
    script = """if True:
        import time
        from concurrent.futures import ThreadPoolExecutor
        from p2p.config.cli import one_sentence
        threads = ThreadPoolExecutor(1)
        threads.submit(time.sleep, 60)
        print("before", flush=False)
        with one_sentence("infer", full=FULL):
            raise RuntimeError("CUDA error: unspecified launch failure")
    """.replace("FULL", str(full))
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert time.monotonic() - started < 40
    assert done.returncode == 1 and done.stdout == "before\n"
    assert "error: the GPU failed (unspecified launch failure), and every file" in done.stderr
    assert ("Traceback" in done.stderr) == full
