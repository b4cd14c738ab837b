import itertools

import numpy as np
import pytest

from p2p.data.transforms.tiling import ONE, Axis, grid, pad, tiles_of

SIDES = (1, 31, 32, 33, 63, 64, 65, 97, 100, 129, 200, 257, 1000)


@pytest.mark.parametrize("tile", [32, 64, 96, 256])
@pytest.mark.parametrize("stride", [1, 4, 32, 256])
def test_the_weights_of_every_pixel_add_up_to_one(tile, stride):
    for side in SIDES:
        axis = Axis(side, tile, tile // 4, tile // 8, stride)
        total = np.zeros(axis.starts[-1] + tile, np.int64)
        for start, weights in zip(axis.starts, axis.weights, strict=True):
            assert weights.min() >= 0
            total[start : start + tile] += weights
        assert (total[:side] == ONE).all(), (side, axis.starts)


@pytest.mark.parametrize(("tile", "stride"), itertools.product([32, 96, 256], [1, 4, 32, 256]))
def test_tiles_cover_the_image_and_share_what_they_are_to(tile, stride):
    for side in SIDES:
        axis = Axis(side, tile, tile // 4, tile // 8, stride)
        starts, step = axis.starts, min(stride, {32: 4, 96: 8, 256: 32}[tile])
        assert starts[0] == 0 and 0 <= starts[-1] + tile - max(side, tile) < step
        assert all(start % step == 0 for start in starts)
        for a, b in itertools.pairwise(starts):
            assert b - a <= tile - tile // 4  # they share a quarter at least
            assert side <= tile or b > a


def test_a_pixel_fades_along_a_line_and_borders_count_nothing():
    axis = Axis(112, 64, 16, 8)
    assert axis.starts == [0, 48]
    first, second = axis.weights
    assert first[:52].tolist() == [ONE] * 52 and first[60:].tolist() == [0] * 4  # 4 of 16 on either side of the fade
    assert second[:4].tolist() == [0] * 4 and second[12:].tolist() == [ONE] * 52
    assert np.diff(first[52:60]).tolist() == [-ONE // 8] * 7


def test_how_many_tiles_an_image_has():
    assert tiles_of((600, 1200), (256, 256), 256) == 3 * 6
    assert tiles_of((10, 256), (256, 256), 4) == 1
    rows, columns = grid((600, 1200), (256, 256), 4)
    assert rows.starts == [0, 172, 344] and len(columns.starts) == 6


def test_padding_repeats_the_border():
    frame = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert pad(frame, 2, 3) is frame
    assert pad(frame, 4, 5)[:, :, 0].tolist() == [[0, 1, 2, 2, 2], *[[3, 4, 5, 5, 5]] * 3]
