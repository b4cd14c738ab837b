"""data.decode=gpu against the loader that decodes on the CPU."""

from types import SimpleNamespace

import pytest
import torch

from p2p.data.datamodule import PairedImages
from p2p.data.transforms.torchvision import Torchvision
from tests.conftest import picture

pytestmark = pytest.mark.gpu

COUNT = 24


@pytest.fixture(scope="module", params=["side_by_side", "two_folders"])
def pairs(tmp_path_factory, request):
    """Of three sizes and samplings; every sixth is none that a GPU may decode."""
    root = tmp_path_factory.mktemp("pairs")
    wide = 2 if request.param == "side_by_side" else 1
    for folder in ("train", "val") if wide == 2 else ("train/A", "train/B", "val/A", "val/B"):
        (root / folder).mkdir(parents=True)
        for index in range(COUNT):
            size = wide * (150 + 10 * (index % 3)), 130 + 8 * (index % 3)
            image, path = picture(*size, seed=index + 100 * folder.endswith("B")), root / folder / f"{index:02d}.jpg"
            if index in (5, 11):
                image.save(path.with_suffix(".png"))
            elif index == 17:
                image.convert("L").save(path)
            else:
                image.save(path, quality=90, subsampling=index % 3, progressive=index == 23)
    return root


def loader(root, decode, *, preprocess="resize_and_crop", batch_size=8, augmentation="auto"):
    data = PairedImages(
        root=str(root),
        transform=Torchvision(image_size=96, preprocess=preprocess),
        batch_size=batch_size,
        cache="none",
        decode=decode,
        augmentation=augmentation if decode == "gpu" else "auto",
        workers=4 if decode == "gpu" else 0,
    )
    device = torch.device("cuda", 0)
    data.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=SimpleNamespace(root_device=device))
    return data.train_dataloader()


def two_epochs(found):
    torch.manual_seed(0)
    return [batch.to("cuda") for _ in range(2) for batch in found]


@pytest.mark.parametrize("augmentation", ["cvcuda", "torch"])
@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "scale_width_and_crop"])
def test_the_batches_are_those_of_the_cpu(pairs, preprocess, augmentation):
    found = two_epochs(loader(pairs, "gpu", preprocess=preprocess, augmentation=augmentation))
    expected = two_epochs(loader(pairs, "cpu", preprocess=preprocess))
    assert [len(batch) for batch in found] == [8] * 6
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.names == theirs.names
        for side in ("input_NCHW", "target_NCHW"):
            levels = (getattr(mine, side) - getattr(theirs, side)).abs() * 127.5
            # Decoding and resizing round by 1 each: both the same way, at a pixel in thousands.
            assert levels.max() < 2.01 and (levels < 1.01).float().mean() > 0.999
            for name, image in zip(mine.names, levels, strict=True):
                if int(name) in (5, 11, 17, 23):  # the CPU's
                    assert image.max() < 0.01


@pytest.mark.parametrize("preprocess", ["scale_width", "none"])
def test_images_of_their_own_size_one_at_a_time(pairs, preprocess):
    found, expected = (two_epochs(loader(pairs, by, preprocess=preprocess, batch_size=1)) for by in ("gpu", "cpu"))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.names == theirs.names
        assert (mine.target_NCHW - theirs.target_NCHW).abs().max() * 127.5 < 2.01


def test_it_goes_on_where_an_epoch_was_stopped_with_the_same_bits(pairs):
    expected = two_epochs(loader(pairs, "gpu"))
    stopped, resumed = loader(pairs, "gpu"), loader(pairs, "gpu")
    torch.manual_seed(0)
    next(batches := iter(stopped))
    resumed.load_state_dict(stopped.state_dict() | {"batches": 1})
    batches.close()
    for mine, theirs in zip([*resumed, *resumed], expected[1:], strict=True):
        assert mine.names == theirs.names
        assert torch.equal(mine.input_NCHW, theirs.input_NCHW) and torch.equal(mine.target_NCHW, theirs.target_NCHW)


def test_auto_is_the_gpu_and_says_so(pairs, capsys):
    found = loader(pairs, "auto")
    assert "the GPU decodes the training pairs in each epoch, because" in capsys.readouterr().out
    assert all(batch.input_NCHW.is_cuda for batch in found)


def test_nothing_waits_for_the_step_that_is_under_way(pairs):
    found = loader(pairs, "gpu")
    list(found)  # what is made once
    torch.cuda.synchronize()
    busy = torch.cuda.Event()
    for batch in found:
        torch.cuda._sleep(1_000_000_000)  # clock cycles: half a second of a step
        batch.input_NCHW.sum()
        busy.record()
    assert not busy.query()
    torch.cuda.synchronize()


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "none"])
def test_a_slow_step_still_sees_its_own_batch(pairs, preprocess):
    """Batches, and what they are made of, are freed by the host long before the GPU reads them."""
    found = loader(pairs, "gpu", preprocess=preprocess, batch_size=1)
    expected = [batch.input_NCHW.double().sum().item() for batch in two_epochs(found)]
    torch.manual_seed(0)
    sums = []
    for _ in range(2):
        for batch in found:
            torch.cuda._sleep(20_000_000)
            sums.append(batch.input_NCHW.double().sum())
            del batch
    assert torch.stack(sums).tolist() == expected
