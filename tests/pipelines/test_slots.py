import gc
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from p2p.data.pairs import Pair, Source
from p2p.pipelines.slots import PairTable, SharedArray, share_pairs
from tests.conftest import ROOT
from tests.pipelines.conftest import shared_memory

ADD = """
import sys
from p2p.data.pairs import Pair, Source
from p2p.pipelines.slots import PairTable, SharedArray, share_pairs
array = SharedArray((3, 5), "float32", fd=int(sys.argv[1])).array
array += 1.5
"""


def test_another_process_sees_and_changes_it():
    with SharedArray((3, 5), "float32") as shared:
        assert (shared.array == 0).all()
        shared.array[:] = np.arange(15).reshape(3, 5)
        command = [sys.executable, "-c", ADD, str(shared.fd)]
        subprocess.run(command, cwd=ROOT, pass_fds=[shared.fd], check=True)
        assert np.array_equal(shared.array, np.arange(15, dtype=np.float32).reshape(3, 5) + 1.5)


def test_nothing_of_it_is_left():
    gc.collect()  # what an earlier test left would go during this one
    before, descriptors = shared_memory(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    with SharedArray((1000, 1000), "uint8") as shared:
        shared.array[:] = 1
        assert shared_memory()[0] == before[0]  # it has no name
        assert len(shared_memory()[1]) == len(before[1]) + 1
    gc.collect()
    assert shared_memory() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


def test_only_what_is_written_takes_memory():
    """A gigabyte that nobody touches, as the float32 half of the slots usually is, costs nothing."""
    with SharedArray((1 << 30,), "uint8") as shared:
        shared.array[:4096] = 1
        assert os.stat(shared.fd).st_blocks * 512 < 1 << 21  # noqa: PTH116 - a descriptor


def test_a_table_of_pairs_gives_them_back_whatever_their_names():
    paths = ["a.png", "deep/er/\u00fc \u732b.jpg", os.fsdecode(b"not utf-8 \xff\xfe.webp"), "/x/new\nline.png"]
    halves = [None, "left", "right", None]
    pairs = [Pair(path[:-4], Source(Path(path), half)) for path, half in zip(paths, halves, strict=True)]
    with ExitStack() as stack:
        arrays = {name: stack.enter_context(array) for name, array in share_pairs(pairs).items()}
        table = PairTable(**{name: each.array for name, each in arrays.items()})
        assert [table[number] for number in range(4)] == pairs
        del table
