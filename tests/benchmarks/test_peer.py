import io

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import bgr, inputs, peer, peers, savers
from benchmarks.rows import Row
from p2p.batch import from_frames, to_frames
from p2p.codecs.fast import Fast
from p2p.data.pairs import find_inputs
from tests.conftest import picture


@pytest.fixture
def pairs(tmp_path):
    """Eleven A|B pairs of 32x16 pixels."""
    (tmp_path / "inputs").mkdir()
    for index in range(11):
        picture(32, 16, seed=index).save(tmp_path / f"inputs/{index}.jpg", quality=95)
    return find_inputs(str(tmp_path / "inputs"), layout="side_by_side")


@pytest.mark.parametrize("format", ["jpg", "png"])
def test_the_peers_files_hold_the_pictures_of_ours(pairs, tmp_path, monkeypatch, format):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(inputs, "SIZE", 16)
    monkeypatch.setattr(savers, "PART", 1)  # two tasks a batch, and more batches than slots
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Tanh())
    codec, ours = Fast(format=format), tmp_path / "ours"
    ours.mkdir()
    for pair in pairs:
        left_HWC = codec.decode(pair.input.path.read_bytes())[:, :16]
        with torch.no_grad():
            output_NHWC = to_frames(network(from_frames(torch.from_numpy(left_HWC.copy())[None])))
        (ours / f"{pair.name}.{format}").write_bytes(codec.encode(output_NHWC[0].numpy()))
    references = [ours / f"{pair.name}.{format}" for pair in pairs]

    row, generate = Row("peer", format, batch=2, cores=1), peer.make_generate(network)
    found = peers.measure(row, generate, pairs, tmp_path, repeats=1, references=references, searched={})
    assert found["files"] == 11 and found["images_per_s"] > 0
    assert found["settings"] == {"loaders": 1, "savers": 1}
    assert found["worst_psnr_to_ours"] is None or found["worst_psnr_to_ours"] > 50  # sums in another order


def test_images_in_the_order_of_opencv_are_those_of_pillow():
    frame_HWC = np.asarray(picture(24, 16))
    for format in ("jpg", "png"):
        data = bgr.encode(np.ascontiguousarray(frame_HWC[..., ::-1]), format=format)
        assert data.startswith({"jpg": b"\xff\xd8", "png": b"\x89PNG"}[format])
        decoded_HWC = np.asarray(Image.open(io.BytesIO(data)))
        assert np.abs(decoded_HWC.astype(int) - frame_HWC).max() <= (12 if format == "jpg" else 0)
        if format == "jpg":
            np.testing.assert_array_equal(bgr.decode(data)[..., ::-1], decoded_HWC)


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
def test_the_ways_to_share_the_cores_differ_and_have_a_process_at_least(cores):
    ways = [(each["loaders"], each["savers"]) for each in peer.candidates(cores)]
    assert len(set(ways)) == len(ways) and min(min(way) for way in ways) >= 1
    assert (cores, cores) in ways


def test_frames_that_dali_has_normalized_give_the_same_picture(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    generate = peer.make_generate(torch.nn.Tanh())
    frames_NHWC = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    normalized_NHWC = frames_NHWC.flip(3).float() / 127.5 - 1
    torch.testing.assert_close(generate(normalized_NHWC), generate(frames_NHWC), atol=1, rtol=0)
