"""data.cache=gpu against the loader that reads files."""

from types import SimpleNamespace

import pytest
import torch

from p2p.data.datamodule import PairedImages
from p2p.data.transforms.torchvision import Torchvision
from tests.conftest import picture

pytestmark = pytest.mark.gpu

EXACT = {"torch": 0.0, "cvcuda": 1e-6}


@pytest.fixture
def pairs(tmp_path):
    """Eleven pairs of several sizes, from 300x80 on."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for index in range(11):
            picture(300 + 4 * index, 80 + 2 * index, seed=index).save(tmp_path / split / f"{index}.png")
    return tmp_path


def loader(root, cache, *, batch_size=4, augmentation="auto", preprocess="resize_and_crop", **options):
    transform = Torchvision(image_size=64, preprocess=preprocess)
    data = PairedImages(
        root=str(root), transform=transform, batch_size=batch_size, cache=cache, augmentation=augmentation, **options
    )
    device = torch.device("cuda", 0)
    data.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=SimpleNamespace(root_device=device))
    return data.train_dataloader()


def two_epochs(found, seed=0):
    torch.manual_seed(seed)
    return [batch.to("cuda") for _ in range(2) for batch in found]


@pytest.mark.parametrize("augmentation", EXACT)
@pytest.mark.parametrize("channels", [(3, 3), (1, 3)])
@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "scale_width_and_crop"])
def test_the_batches_are_those_of_the_files(pairs, preprocess, channels, augmentation):
    options = {"preprocess": preprocess, "input_channels": channels[0], "target_channels": channels[1]}
    expected = two_epochs(loader(pairs, "none", workers=0, **options))
    found = two_epochs(loader(pairs, "gpu", augmentation=augmentation, **options))
    assert [len(batch) for batch in found] == [4, 4, 3] * 2
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.names == theirs.names
        for side in ("input_NCHW", "target_NCHW"):
            a, b = getattr(mine, side), getattr(theirs, side)
            torch.testing.assert_close(a, b, rtol=0, atol=EXACT[augmentation])
    assert not torch.equal(expected[0].input_NCHW, expected[3].input_NCHW)


@pytest.mark.parametrize("augmentation", EXACT)
@pytest.mark.parametrize("preprocess", ["scale_width", "none"])
def test_images_of_their_own_size_one_at_a_time(pairs, preprocess, augmentation):
    expected, found = (
        two_epochs(loader(pairs, cache, preprocess=preprocess, batch_size=1, augmentation=by, workers=0))
        for cache, by in (("none", "auto"), ("gpu", augmentation))
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.target_NCHW, theirs.target_NCHW, rtol=0, atol=EXACT[augmentation])


def test_images_of_several_sizes_make_no_batch(pairs):
    with pytest.raises(ValueError, match="makes no batch of images of several sizes: use batch_size=1"):
        two_epochs(loader(pairs, "gpu", preprocess="none", batch_size=11))


def test_auto_is_the_gpu_and_says_so(pairs, capsys):
    found = loader(pairs, "auto")
    assert found.dataset.batches_on_gpu is not None
    assert "11 pairs are kept on the GPU, augmented by CV-CUDA" in capsys.readouterr().out
    assert all(batch.input_NCHW.is_cuda for batch in found)


@pytest.mark.parametrize("augmentation", EXACT)
def test_nothing_waits_while_the_step_is_under_way(pairs, augmentation):
    found = loader(pairs, "gpu", augmentation=augmentation)
    list(found)  # what is made once
    torch.cuda.synchronize()
    busy = torch.cuda.Event()
    for batch in found:
        torch.cuda._sleep(1_000_000_000)  # clock cycles: half a second of a step
        batch.input_NCHW.sum()
        busy.record()
    assert not busy.query()
    torch.cuda.synchronize()


@pytest.mark.parametrize("augmentation", EXACT)
def test_a_slow_step_still_sees_its_own_batch(pairs, augmentation):
    """Batches are freed by the host long before the GPU reads them."""
    found = loader(pairs, "gpu", augmentation=augmentation, batch_size=2)
    expected = [batch.input_NCHW.sum().item() for batch in two_epochs(found)]
    torch.manual_seed(0)
    sums = []
    for _ in range(2):
        for batch in found:
            torch.cuda._sleep(20_000_000)
            sums.append(batch.input_NCHW.sum())
            del batch
    assert torch.stack(sums).tolist() == expected
