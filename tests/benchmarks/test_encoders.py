import io

import numpy as np
import pytest
from PIL import Image

from benchmarks import decoders, encoders, encodings
from p2p.codecs.fast import Fast, encode_jpeg
from tests.conftest import picture


def test_fidelity_is_the_formulas():
    frame = np.full((8, 8, 3), 100, np.uint8)

    def off_by_two(frame):
        buffer = io.BytesIO()
        Image.fromarray(frame + np.array([2, 2, 2], np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    found = encoders.fidelity(off_by_two, [frame, frame // 2], lossy=True)
    assert found["kb"] * 1000 == pytest.approx(np.mean([len(off_by_two(each)) for each in (frame, frame // 2)]))
    assert found["psnr"] == found["worst"] == pytest.approx(20 * np.log10(255 / 2)) == found["red"]


def test_the_first_candidates_are_codec_fasts_and_all_that_is_lossless_is():
    frame = np.asarray(picture(64, 64))
    name, first = next(iter(encodings.lossy().items()))
    assert first(frame, quality=encoders.QUALITY) == Fast(format="jpg").encode(frame), name
    name, first = next(iter(encodings.lossless().items()))
    assert first(frame) == Fast().encode(frame), name
    for name, encode in encodings.lossless().items():
        if not name.startswith("Up"):  # these are of deflate alone
            assert (encodings.read_back(bytes(encode(frame))) == frame).all(), name


def test_decoders_are_compared_with_the_right_columns():
    data = encode_jpeg(np.asarray(picture(64, 32)), quality=95)
    rows = decoders.measure([data], 1, None)
    assert rows["codec=fast (simplejpeg)"]["largest"] == rows["torchvision"]["largest"] == 0
