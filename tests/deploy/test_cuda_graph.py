"""What of recording needs no GPU; the rest is in tests/gpu."""

import pytest

from p2p.deploy import cuda_graph

SPOILT = "CUDA error: operation failed due to a previous error during capture"


@pytest.fixture
def pauses(monkeypatch):
    """Those that were made, in seconds."""
    seen = []
    monkeypatch.setattr(cuda_graph.time, "sleep", seen.append)
    return seen


def trial(*outcomes):
    left = list(outcomes)

    def run():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return run


def test_a_spoilt_recording_is_made_again_after_a_pause(pauses):
    assert cuda_graph._again(trial(RuntimeError(SPOILT), RuntimeError(SPOILT), "graph")) == "graph"
    assert pauses == [0.5, 1.0]


def test_the_last_failure_is_raised(pauses):
    failures = [RuntimeError(f"{SPOILT} {number}") for number in range(5)]
    with pytest.raises(RuntimeError, match="capture 4"):
        cuda_graph._again(trial(*failures))
    assert len(pauses) == 4


def test_other_errors_are_not_tried_again(pauses):
    with pytest.raises(RuntimeError, match="shapes"):
        cuda_graph._again(trial(RuntimeError("shapes cannot be multiplied"), "graph"))
    assert not pauses
