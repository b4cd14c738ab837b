"""Which files of a folder the GPU loads, where it decodes; tests/pipelines/test_gpu_translator.py has the rest."""

import pytest

from p2p.data.pairs import Pair, Source
from tests.conftest import picture
from tests.pipelines.conftest import Negative, stages_for


def files_for(tmp_path, preprocess="resize_and_crop", kind="same size"):
    files = stages_for(Negative(), tmp_path, image_size=16, preprocess=preprocess).files
    files.gpu_decodes = kind
    return files


@pytest.mark.parametrize(
    ("size", "half", "preprocess", "same", "other"),
    [
        ((16, 16), None, "resize_and_crop", True, True),
        ((32, 16), "left", "resize_and_crop", True, True),
        ((32, 16), None, "resize_and_crop", False, True),
        ((33, 16), "right", "resize_and_crop", False, False),
        ((40, 30), None, "crop", True, True),
        ((40, 10), None, "crop", False, False),
        ((16, 16), None, "none", True, True),
        ((32, 32), None, "none", False, False),  # the program takes 16x16
        ((40, 60), None, "scale_width_and_crop", False, True),
    ],
)
def test_which_jpeg_files_a_gpu_loads(tmp_path, size, half, preprocess, same, other):
    picture(*size).save(tmp_path / "x.jpg")
    pair, data = Pair("x", Source(tmp_path / "x.jpg", half)), (tmp_path / "x.jpg").read_bytes()
    expected = (size[1], size[0] // 2 if half else size[0])
    for kind, fits in (("same size", same), ("any size", other), (None, False)):
        assert files_for(tmp_path, preprocess, kind).gpu_size(pair, data) == (expected if fits else None)


def test_halves_of_another_shape_are_the_cpus_which_refuses_them(tmp_path):
    picture(32, 16).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    for shape, fits in ((1.0, True), (1.5, False)):
        pair = Pair("x", Source(tmp_path / "x.jpg", "left", shape))
        assert files_for(tmp_path, "resize_and_crop", "any size").gpu_size(pair, data) == ((16, 16) if fits else None)
