import pytest

from p2p.system.plural import counted


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((12_000, "image"), "12,000 images"),
        ((1, "batch", "batches"), "1 batch"),
        ((2, "batch", "batches"), "2 batches"),
        ((1, "pair is", "pairs are"), "1 pair is"),
        ((3, "pair is", "pairs are"), "3 pairs are"),
    ],
)
def test_counted(words, text):
    assert counted(*words) == text
