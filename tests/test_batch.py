import torch

from p2p.batch import Batch, from_frames, to_frames


def test_frames_are_rounded_clipped_and_channels_last():
    values = torch.linspace(-1.2, 1.2, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    frames = to_frames(values)
    assert frames.shape == (2, 8, 8, 3)
    assert frames.dtype == torch.uint8
    for n, c, h, w in [(0, 0, 0, 0), (0, 2, 7, 7), (1, 1, 3, 5), (1, 2, 7, 7)]:
        expected = min(255, max(0, round((values[n, c, h, w].item() + 1) / 2 * 255)))
        assert frames[n, h, w, c] == expected


def test_every_uint8_level_survives_normalization():
    levels = torch.arange(256.0).reshape(1, 1, 16, 16)
    assert to_frames(levels / 127.5 - 1).flatten().tolist() == list(range(256))


def test_frames_are_frames_already():
    frames = torch.arange(24, dtype=torch.uint8).view(1, 2, 4, 3)
    assert torch.equal(to_frames(frames), frames)


def test_to_frames_leaves_its_argument_alone():
    values = torch.zeros(1, 3, 2, 2)
    to_frames(values)
    assert (values == 0).all()


def test_collate_keeps_order_and_drops_targets_where_one_is_missing():
    one = Batch(["a"], torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
    two = Batch(["b"], torch.ones(1, 3, 2, 2))
    joined = Batch.collate([one, two])
    assert joined.names == ["a", "b"]
    assert joined.input_NCHW.mean(dim=(1, 2, 3)).tolist() == [0, 1]
    assert joined.target_NCHW is None
    assert Batch.collate([one, one]).target_NCHW.shape == (2, 3, 2, 2)


def test_floats_of_one_channel_have_the_usual_strides():
    """By others oneDNN takes other kernels, and a pipeline's last bits differ from another's."""
    frames_NHWC = torch.rand(2, 3, 4, 1)
    for each in (frames_NHWC, frames_NHWC.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), frames_NHWC[[0]]):
        images_NCHW = from_frames(each)
        assert images_NCHW.stride() == (12, 12, 4, 1)
        assert (images_NCHW.permute(0, 2, 3, 1) == each).all()
