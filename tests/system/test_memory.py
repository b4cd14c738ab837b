"""In fresh interpreters, since what the C library is told holds for the whole process."""

import subprocess
import sys

import pytest

from p2p.system import memory
from tests.conftest import ROOT

MANY = """
import resource, sys
from p2p.system.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

if sys.argv[1] != "as it is":
    assert keep_freed_memory(None if sys.argv[1] == "all" else 64 << 20)
begin = resident()
first = [bytearray(400_000) for _ in range(3)]  # one image takes several blocks, and frees them at once
del first
before = faults()
for _ in range(50):
    blocks = [bytearray(400_000) for _ in range(3)]
    del blocks
many = faults() - before
large = bytearray(b"x") * 300_000_000
del large
print(many, resident() - begin)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_kept_and_no_more_than_asked_for():
    def run(what):
        done = subprocess.run([sys.executable, "-c", MANY, what], cwd=ROOT, capture_output=True, text=True, check=True)
        return tuple(map(int, done.stdout.split()))

    faults, _ = run("as it is")
    assert faults > 1000  # or there is nothing to show
    for what, least, most in (("all", 250_000_000, 400_000_000), ("some", 0, 80_000_000)):
        faults, kept = run(what)
        assert faults < 100 and least <= kept <= most, what


def test_free_memory_is_not_known_where_the_system_does_not_say_it(monkeypatch):
    """As in a sandbox with a /proc of its own."""
    monkeypatch.setattr(memory.Path, "read_text", lambda _: "MemTotal:  2097152 kB\nMemFree:  1048576 kB\n")
    assert memory.free_memory() is None
