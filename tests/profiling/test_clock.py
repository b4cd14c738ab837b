import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from p2p.profiling.clock import COLOURS, Clock


def test_it_adds_up_over_threads_and_exceptions():
    clock = Clock()

    def work(_):
        with clock("decode", images=2):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(500)))
    with pytest.raises(KeyError), clock("decode"):
        raise KeyError
    assert clock.images["decode"] == 1001
    assert 0 < clock.seconds["decode"] < 10


def test_only_stages_that_have_a_colour_can_be_measured():
    clock = Clock()
    for stage in COLOURS:
        with clock(stage):
            pass
    with pytest.raises(KeyError), clock("dekode"):
        pass


def test_ranges_are_pushed_and_popped_in_nvtx(monkeypatch):
    calls = []

    class Domain:
        def get_event_attributes(self, message, color):
            return message, color

        def push_range(self, attributes):
            calls.append(attributes)

        def pop_range(self):
            calls.append("pop")

    monkeypatch.setattr(sys.modules["p2p.profiling.clock"].nvtx, "get_domain", lambda name: Domain())
    clock = Clock()
    with clock("e2e"), clock("encode"):
        pass
    assert calls == [("e2e", COLOURS["e2e"]), ("encode", COLOURS["encode"]), "pop", "pop"]
