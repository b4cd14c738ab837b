import numpy as np
import pytest
import torch

from p2p.data.edges import blur, connected, line_drawing


def lines(frame, **options):
    return line_drawing(frame, **options)[..., 0] == 0


def test_a_square_is_outlined_by_lines_of_one_pixel():
    frame = np.full((64, 64, 3), 40, np.uint8)
    frame[16:48, 20:44] = 200
    drawn = lines(frame)
    distance = np.full((64, 64), 99.0)  # of each pixel's centre from the outline, which runs between pixels
    rows, columns = np.mgrid[:64, :64] + 0.5
    inside = np.minimum.reduce([rows - 16, 48 - rows, columns - 20, 44 - columns])
    dy = np.maximum.reduce([16 - rows, rows - 48, np.zeros_like(rows)])
    dx = np.maximum.reduce([20 - columns, columns - 44, np.zeros_like(rows)])
    distance = np.where(inside > 0, inside, np.hypot(dx, dy))
    assert distance[drawn].max() < 1.5
    assert (drawn[22:42, :32].sum(axis=1) == 1).all() and (drawn[22:42, 32:].sum(axis=1) == 1).all()
    assert (drawn[:32, 26:38].sum(axis=0) == 1).all() and (drawn[32:, 26:38].sum(axis=0) == 1).all()


def test_a_discs_outline_is_at_its_radius_and_closed():
    rows, columns = np.mgrid[:96, :96]
    radius = np.hypot(rows - 47.5, columns - 47.5)
    drawn = lines(np.where(radius < 30, 220, 30).astype(np.uint8)[..., None])
    assert np.abs(radius[drawn] - 30).max() < 1.5
    angles = np.degrees(np.arctan2(rows - 47.5, columns - 47.5))[drawn]
    assert np.diff(np.sort(angles)).max() < 5  # a gap would show


def test_plain_slopes_and_noise_are_no_lines():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (64, 64, 3))
    assert not lines(ramp).any()
    assert not lines(np.random.default_rng(0).integers(100, 120, (64, 64, 3), dtype=np.uint8)).any()


def test_colours_of_equal_brightness_are_told_apart():
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[:, :16, 0], frame[:, 16:, 1] = 200, 102  # equal luma: 0.299 * 200 = 0.587 * 102
    assert (lines(frame)[:, 14:18].sum(axis=1) == 1).all()


def test_the_slope_that_is_seen_is_that_of_a_blurred_step():
    """A step of height h after a Gaussian has the slope h / (sqrt(2 pi) sigma) at most: thresholds on both sides."""
    frame = np.full((32, 32, 1), 100, np.uint8)
    frame[:, 16:] = 151
    slope = 51 / 255 / (np.sqrt(2 * np.pi) * 3)
    assert lines(frame, sigma=3, low=0.9 * slope, high=0.9 * slope).any()
    assert not lines(frame, sigma=3, low=1.05 * slope, high=1.05 * slope).any()


def test_blur_keeps_the_mean_and_has_the_variance_asked_for():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    result = blur(point, 2.0)[0, 0]
    offsets = torch.arange(-20, 21.0)
    assert result.sum() == pytest.approx(1, abs=1e-5)
    assert (result.sum(0) * offsets**2).sum() == pytest.approx(4, rel=0.03)  # cut at three sigma


def test_hysteresis_is_flood_fill():
    generator = np.random.default_rng(0)
    weak = generator.random((24, 24)) < 0.4
    strong = weak & (generator.random((24, 24)) < 0.03)
    expected, todo = np.zeros_like(weak), list(zip(*np.nonzero(strong), strict=True))
    while todo:
        row, column = todo.pop()
        if 0 <= row < 24 and 0 <= column < 24 and weak[row, column] and not expected[row, column]:
            expected[row, column] = True
            todo += [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert strong.sum() < expected.sum() < weak.sum()
    assert (connected(torch.from_numpy(strong), torch.from_numpy(weak)).numpy() == expected).all()


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="sigma must be above 0"):
        line_drawing(np.zeros((8, 8, 3), np.uint8), sigma=0)
    with pytest.raises(ValueError, match=r"low=0\.5, high=0\.05"):
        line_drawing(np.zeros((8, 8, 3), np.uint8), low=0.5)
