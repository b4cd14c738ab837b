"""Kept pairs against those that are read from their files in every epoch."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.data import gpu_batches
from p2p.data.cache import PairCache, choose
from p2p.data.datamodule import PairedImages
from p2p.data.gpu_batches import WithCvCuda, WithTorch, one_ahead
from p2p.data.transforms.torchvision import Torchvision
from p2p.data.transforms.transform import View
from tests.conftest import picture

MODES = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")


@pytest.fixture
def pairs(tmp_path):
    """Six pairs of several sizes."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for index in range(6):
            picture(100 + 8 * index, 40 + 3 * index, seed=index).save(tmp_path / split / f"{index}.png")
    return tmp_path


def paired_images(root, preprocess="resize_and_crop", **options):
    return PairedImages(root=str(root), transform=Torchvision(image_size=32, preprocess=preprocess), **options)


def two_epochs(data):
    loader = data.train_dataloader()
    torch.manual_seed(0)
    return [batch for _ in range(2) for batch in loader]


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.names == theirs.names
        assert torch.equal(mine.input_NCHW, theirs.input_NCHW)
        assert torch.equal(mine.target_NCHW, theirs.target_NCHW)


@pytest.mark.parametrize("preprocess", MODES)
def test_ram_gives_the_same_batches(pairs, preprocess, capsys, monkeypatch):
    expected = two_epochs(paired_images(pairs, preprocess, cache="none"))
    loader = paired_images(pairs, preprocess, cache="ram").train_dataloader()
    assert "6 pairs are kept in memory: 0.00 GB, read in" in capsys.readouterr().out
    monkeypatch.setattr("p2p.data.dataset.read_pair", None)  # no file is read any more
    torch.manual_seed(0)
    assert_same([batch for _ in range(2) for batch in loader], expected)


def test_auto_keeps_nothing_where_a_later_pair_is_deeper_than_the_first(pairs, capsys, monkeypatch):
    levels = np.arange(40 * 100, dtype=np.uint16).reshape(40, 100) * 16
    Image.fromarray(levels).save(pairs / "train/9.png")
    expected = two_epochs(paired_images(pairs, cache="none", input_channels=1, target_channels=1))
    monkeypatch.setattr("p2p.data.datamodule.choose", lambda cache, **_: "ram")  # what auto finds by the first pair
    assert_same(two_epochs(paired_images(pairs, cache="auto", input_channels=1, target_channels=1)), expected)
    assert "kept" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"an image has more: use data\.cache=none"):
        two_epochs(paired_images(pairs, cache="ram", input_channels=1, target_channels=1))


def test_loader_processes_share_what_is_kept(pairs):
    options = {"cache": "ram", "input_channels": 1, "batch_size": 4}
    alone, helped = (two_epochs(paired_images(pairs, workers=workers, **options)) for workers in (0, 2))
    assert alone[0].input_NCHW.shape == (4, 1, 32, 32)
    assert_same(helped, alone)


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_cut_by_torch_are_those_of_the_loader(pairs, preprocess, channels):
    """What data.cache=gpu does where there is no CV-CUDA, here on the CPU."""
    data = paired_images(pairs, preprocess, cache="ram", batch_size=6, input_channels=channels)
    loader = data.train_dataloader()
    (batch,) = loader
    dataset = loader.dataset
    order = [dataset.names.index(name) for name in batch.names]
    cached = [dataset.cache.pair(index) for index in order]
    views = [
        dataset.view(index, *pair[0].shape[:2]) for index, pair in zip(order, cached, strict=True)
    ]  # of this epoch: the seed is still there
    assert {view.mirrored for view in views} == {True, False}
    cut = WithTorch()
    for found, images in ((batch.input_NCHW, 0), (batch.target_NCHW, 1)):
        assert torch.equal(cut([pair[images] for pair in cached], views), found)


class ByTheBook:
    """CV-CUDA's operator as its header describes it, on the CPU (cvcuda/OpCropFlipNormalizeReformat.h)."""

    Format = SimpleNamespace(RGB8=3, U8=1)

    class ImageBatchVarShape(list):
        def __init__(self, capacity):
            self.capacity = capacity

        def pushback(self, images):
            self.extend(images)
            assert len(self) <= self.capacity

    @staticmethod
    def as_stream(stream):
        return stream

    @staticmethod
    def as_image(image_HWC, format):
        assert image_HWC.dtype == torch.uint8 and image_HWC.shape[2] == format
        return image_HWC

    @staticmethod
    def as_tensor(tensor, layout):
        assert tensor.is_contiguous() and tensor.ndim == len(layout)
        return tensor

    @staticmethod
    def crop_flip_normalize_reformat_into(dst, src, *, rect, flip_code, base, scale, globalshift, stream):
        assert rect.dtype == flip_code.dtype == torch.int32
        for i, image_HWC in enumerate(src):
            x, y, width, height = rect[i].flatten().tolist()
            window = image_HWC[y : y + height, x : x + width]
            window = window.flip({0: 0, 1: 1}[code]) if (code := flip_code[i].item()) in (0, 1) else window
            dst[i] = (window - base.flatten()) * scale.flatten() + globalshift


@pytest.mark.parametrize("channels", [1, 3])
def test_what_cv_cuda_is_told_makes_the_same_windows(channels, monkeypatch):
    monkeypatch.setitem(sys.modules, "cvcuda", ByTheBook)
    monkeypatch.setattr(gpu_batches, "Ordered", lambda tensor, stream: tensor)
    transform, generator = Torchvision(image_size=32, load_size=40), torch.Generator().manual_seed(0)
    images = [torch.randint(256, (40, 44, channels), dtype=torch.uint8) for _ in range(8)]
    views = [transform.draw(40, 44, generator) for _ in images]
    assert {view.mirrored for view in views} == {True, False}
    with_cvcuda = WithCvCuda(None, kept=True)
    for _ in range(2):  # the second time with what the first one kept
        found = with_cvcuda(images, views)
        torch.testing.assert_close(found, WithTorch()(images, views), rtol=0, atol=1e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_other_images_at_the_place_of_those_that_are_not_kept(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvcuda", ByTheBook)
    monkeypatch.setattr(gpu_batches, "Ordered", lambda tensor, stream: tensor)
    memory, view = torch.randint(256, (40 * 44 * 3,), dtype=torch.uint8), View(4, 6, 32, 32, mirrored=True)
    with_cvcuda = WithCvCuda(None, kept=False)
    for shape in ((40, 44, 3), (44, 40, 3)):
        images = [memory.view(shape)]
        torch.testing.assert_close(with_cvcuda(images, [view]), WithTorch()(images, [view]), rtol=0, atol=1e-6)


def test_crops_and_flips_are_uniform():
    transform, generator = Torchvision(image_size=32, load_size=40), torch.Generator().manual_seed(0)
    count = 3600
    views = [transform.draw(40, 40, generator) for _ in range(count)]
    for drawn in (torch.tensor([view.top for view in views]), torch.tensor([view.left for view in views])):
        frequencies = torch.bincount(drawn, minlength=9)
        assert len(frequencies) == 9  # 0 to 8
        assert ((frequencies - count / 9).abs() < 5 * (count / 9 * 8 / 9) ** 0.5).all()  # five standard deviations
    assert abs(sum(view.mirrored for view in views) - count / 2) < 5 * count**0.5 / 2
    assert {(view.height, view.width) for view in views} == {(32, 32)}


def test_what_a_cache_holds():
    images = [torch.randint(256, (3, 4 + i, 5), dtype=torch.uint8) for i in range(5)]
    byte = np.dtype(np.uint8)
    cache = PairCache(lambda i: ((images[i], byte), (images[i][:1], byte)), count=5)
    assert len(cache) == 5 and cache.bytes == sum(4 * image[0].numel() for image in images)
    for i, image in enumerate(images):
        assert torch.equal(cache.pair(i)[0], image.permute(1, 2, 0))
        assert torch.equal(cache.pair(i)[1], image[:1].permute(1, 2, 0))
        assert cache.pair(i)[0].is_contiguous()
    with pytest.raises(ValueError, match=r"data\.cache keeps 8 bits a channel.*use data\.cache=none"):
        PairCache(lambda i: ((images[i].float(), np.dtype(np.uint16)),) * 2, count=1)


def test_auto_takes_the_gpu_if_a_quarter_of_it_is_enough(monkeypatch):
    free = 4 * 1000 * 2 * 3 * 8 * 8
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    image = (torch.zeros(3, 8, 8, dtype=torch.uint8), np.dtype(np.uint8))
    deep = (torch.zeros(3, 8, 8), np.dtype(np.uint16))
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert choose("auto", device=gpu, load=lambda i: (image, image), count=1000) == "gpu"
    assert choose("auto", device=gpu, load=lambda i: (image, image), count=1001) == "none"
    assert choose("auto", device=gpu, load=lambda i: (image, deep), count=10) == "none"
    assert choose("auto", device=cpu, load=None, count=10) == "none"
    assert choose("ram", device=gpu, load=None, count=10) == "ram"
    for asked, sentence in (
        ("gpu", r"data\.cache=gpu keeps the pairs on an NVIDIA GPU.*: use ram or none"),
        ("disk", r"data\.cache=disk is not known: use one of auto, gpu, ram, none"),
    ):
        with pytest.raises(ValueError, match=sentence):
            choose(asked, device=cpu, load=None, count=10)


def test_without_a_gpu_the_datamodule_refuses_and_auto_reads_files(pairs, capsys):
    data = paired_images(pairs, cache="gpu")
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    with pytest.raises(ValueError, match=r"data\.cache=gpu"):
        data.train_dataloader()
    dataset = paired_images(pairs).train_dataloader().dataset
    assert dataset.cache is None and dataset.batches_on_gpu is None
    assert capsys.readouterr().out == ""


def test_a_batch_is_made_while_its_predecessor_is_used(monkeypatch):
    order = []

    def make(indices):
        order.append(("make", *indices))
        return indices, None

    def hand_over(indices, ready, *, device):
        order.append(("hand over", *indices))
        return indices

    monkeypatch.setattr(gpu_batches, "hand_over", hand_over)
    batches = one_ahead(map(make, [[3, 1], [0], [2]]), device=None)
    order.extend(("use", *indices) for indices in batches)
    assert order == [
        *(("make", 3, 1), ("make", 0), ("hand over", 3, 1), ("use", 3, 1)),
        *(("make", 2), ("hand over", 0), ("use", 0)),
        *(("hand over", 2), ("use", 2)),
    ]
    assert list(one_ahead([], device=None)) == []
