"""What the discriminator sees: the changes against slow ones, found in the pictures or made from the same draws."""

import colorsys

import numpy as np
import pytest
import torch

from p2p.batch import Batch
from p2p.losses.feature_matching import FeatureMatching
from p2p.training.augment import augmented, check_changes
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix

SIDE = 16


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(64, 3, SIDE, SIDE, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("names", [["color"], ["translation"], ["cutout"], ["color", "translation", "cutout"]])
def test_an_input_and_its_image_are_changed_alike(images, names):
    one, other = augmented(images, images.clone(), names)
    assert torch.equal(one, other) and not torch.equal(one, images.to(one.dtype))
    again, _ = augmented(images, images, names)
    assert not torch.equal(one, again)
    assert len({each.numpy().tobytes() for each in (one - images)}) > 12  # a draw for each


def test_translation_is_a_shift_of_an_eighth_at_the_most(images):
    shifted, _ = augmented(images, images, ["translation"])
    seen = set()
    for before, after in zip(images.numpy(), shifted.numpy(), strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2)))
        windows = {(i, j): padded[:, i : i + SIDE, j : j + SIDE] for i in range(5) for j in range(5)}
        (found,) = (place for place, window in windows.items() if np.array_equal(window, after))
        seen.add(found)
    assert len(seen) > 15 and {i for i, _ in seen} == {j for _, j in seen} == set(range(5))


def test_cutout_greys_a_square_of_half_the_side_or_what_lies_inside(images):
    cut, _ = augmented(images, images, ["cutout"])
    sizes = set()
    for before, after in zip(images.numpy(), cut.numpy(), strict=True):
        hole = (after == 0).all(0)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        for lines in (rows, columns):
            assert (np.diff(lines) == 1).all()
            assert len(lines) == 8 or lines[0] == 0 or lines[-1] == SIDE - 1
            sizes.add(len(lines))
        assert hole.sum() == len(rows) * len(columns)
        assert np.array_equal(after[:, ~hole], before[:, ~hole])
    assert sizes <= set(range(4, 9)) and 8 in sizes and 4 in sizes


def test_colors_by_the_papers_formulas():
    torch.manual_seed(1)
    image = torch.rand(2, 3, 4, 4) * 2 - 1
    torch.manual_seed(2)
    changed, _ = augmented(image, image, ["color"])
    torch.manual_seed(2)
    draws = torch.rand(3, 2).numpy()
    for index, (brightness, saturation, contrast) in enumerate(draws.T):
        x = image[index].numpy() + brightness - 0.5
        grey = x.mean(0, keepdims=True)
        x = (x - grey) * (saturation * 2) + grey
        x = (x - x.mean()) * (contrast + 0.5) + x.mean()
        np.testing.assert_allclose(changed[index].numpy(), x, atol=1e-6)
    hue = colorsys.rgb_to_hsv(*((image[0, :, 0, 0] + 1) / 2).tolist())[0]
    assert colorsys.rgb_to_hsv(*(changed[0, :, 0, 0] + 5).tolist())[0] == pytest.approx(hue, abs=1e-4)


def test_gradients_come_through(images):
    image = images[:2, :1, :6, :6].clone().requires_grad_()

    def through(image):
        torch.manual_seed(0)
        return augmented(image, image, ["translation", "cutout"])[1]

    assert torch.autograd.gradcheck(through, [image])


def test_the_discriminator_sees_changed_pairs_in_all_its_passes(tmp_path):
    seen = []

    class Seeing(TinyDiscriminator):
        def forward(self, a, b):
            seen.append((a, b))
            return super().forward(a, b)

    torch.manual_seed(0)
    batch = Batch(["x"], *(torch.rand(2, 1, 3, 16, 16) + 0.1))
    for changes, holes in ((["cutout"], True), ([], False)):
        seen.clear()
        fit(pix2pix(TinyGenerator(), Seeing(), augment=changes), [batch], tmp_path)
        assert len(seen) == 3  # the target, the output in both steps
        assert all(((image == 0).all(1).sum() >= 16) == holes for pair in seen for image in pair)


def test_names_that_are_not_known():
    check_changes(["color", "cutout"], {})
    check_changes([], {"features": FeatureMatching()})
    with pytest.raises(ValueError, match=r"^losses\.features compares what the discriminator sees"):
        check_changes(["color"], {"features": FeatureMatching()})
    for names in (["colour"], "color", ["cutout", "blur"]):
        with pytest.raises(
            ValueError, match=r"^model\.augment=.* is not valid: use a list of some of color, translation"
        ):
            check_changes(names, {})
