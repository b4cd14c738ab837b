"""A batch between the slots."""

import numpy as np

from p2p.batch import from_frames
from p2p.pipelines.slots import HIGH_DEPTH, ROW
from p2p.pipelines.translator import SlotBatch, gather


def test_what_a_slot_holds_as_the_engine_sees_it():
    """Against the images one by one; without gaps and depth it is the slot itself, not a copy."""
    rng = np.random.default_rng(0)
    frames, high = rng.integers(0, 256, (2, 4, 3, 3, 1), dtype=np.uint8), rng.random((2, 4, 3, 3, 1), np.float32)
    for rows, floats in (([0, 1, 2], []), ([1, 3], []), ([0, 2, 3], [2]), ([1], [1])):
        found = np.zeros(4, ROW)
        found["state"][floats] = HIGH_DEPTH
        seen = from_frames(gather(SlotBatch(1, [], found), rows, frames, high))
        for image, row in zip(seen, rows, strict=True):
            expected = high[1, row] if row in floats else frames[1, row].astype(np.float32) / np.float32(127.5) - 1
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert gather(SlotBatch(1, [], np.zeros(4, ROW)), [0, 1], frames, high).data_ptr() == frames[1].ctypes.data
