"""The running command once more, under Nsight Systems, which sees CUDA, every thread and the clock's NVTX ranges."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2p.profiling.clock import Clock

INSIDE = "P2P_UNDER_NSYS"  # the report's path, for the process that nsys runs, or it would start nsys again
REPORT = "profile.nsys-rep"


@contextmanager
def profile(clock: Clock, *, folder: str | Path, trace: str = "cuda,nvtx,osrt") -> Iterator[None]:
    """Become `nsys profile ... <this command>`; in the process that nsys runs, run the block.

    Args:
        clock: gives the NVTX ranges, and is left as it is.
        folder: of the report, profile.nsys-rep, which replaces an earlier one; made if it is not there.
        trace: what nsys traces, see `nsys profile --help`.

    Raises:
        ValueError: nsys is not installed.
    """
    if INSIDE not in os.environ:  # it stays there: a sweep comes by once for each of its jobs
        _become_nsys(Path(folder).absolute(), trace)
    try:
        yield
    finally:
        print(f"look at {os.environ[INSIDE]} with nsys-ui, or nsys stats")


def _become_nsys(folder: Path, trace: str) -> None:
    """Replace this process; does not return."""
    nsys = shutil.which("nsys")
    if nsys is None:
        raise ValueError(
            "profile=nsys needs Nsight Systems, and there is no nsys on the PATH: install it, or use profile=timeline"
        )
    folder.mkdir(parents=True, exist_ok=True)
    options = [f"--trace={trace}", f"--output={folder / 'profile'}", "--force-overwrite=true"]
    command = [sys.executable, *sys.orig_argv[1:]]
    sys.stdout.flush()
    os.execve(nsys, [nsys, "profile", *options, *command], os.environ | {INSIDE: str(folder / REPORT)})
