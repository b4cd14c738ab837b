"""data.decode=gpu against the loader that decodes on the CPU, with stand-ins for CUDA; see tests/gpu for itself."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs.nvjpeg import NvJpegDecoder
from p2p.data import decoder as choice
from p2p.data.datamodule import PairedImages
from p2p.data.transforms import cvcuda
from p2p.data.transforms.torchvision import Torchvision
from tests.conftest import picture
from tests.pipelines.test_gpu_translator import ByPillow, Event, Stream, resized

GPU = SimpleNamespace(type="cuda")


class Decoder(ByPillow):
    """Counts what it gets."""

    def __init__(self, device):
        self.files = 0

    def decode(self, files, *, stream):
        self.files += len(files.lengths)
        return super().decode(files, stream=stream)


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """Stand-ins on the CPU for CUDA, nvJPEG and CV-CUDA's resize."""
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda each: nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(choice, "NvJpegDecoder", Decoder)
    monkeypatch.setattr(cvcuda, "unavailable", lambda: None)
    monkeypatch.setattr(cvcuda, "resize", resized)


def save(image, path, **options):
    """As a JPEG file of an even number of bytes, which the stand-in decodes; damaged: of an odd number."""
    odd = options.pop("damaged", False)
    image.save(path, "JPEG", quality=95, **options)
    data = path.read_bytes()
    path.write_bytes(data if len(data) % 2 == odd else data + b"\0")


def fill(root, side_by_side):
    """Twelve pairs, 0 to 7 for the GPU; beside them what it may not or cannot decode."""
    for folder in ("train", "val") if side_by_side else ("train/A", "train/B", "val/A", "val/B"):
        (root / folder).mkdir(parents=True)
        for index in range(12):
            size = (2 if side_by_side else 1) * (50 + 4 * (index % 3)), 40 + 3 * (index % 3)
            target, path = folder.endswith("B"), root / folder / f"{index:02d}.jpg"
            image = picture(*size, seed=index + 100 * target)
            if index < 8 or (target and index != 11) or (folder.endswith("A") and index == 11):
                save(image, path, subsampling=index % 3)
            elif index == 8:
                save(image, path, progressive=True)
            elif index == 9:
                save(image.convert("L"), path)
            elif index == 10:
                deep = np.asarray(image.convert("L")).astype(np.uint16) * 257 - 100
                Image.fromarray(deep).save(path.with_suffix(".png"))
            else:
                save(image, path, damaged=True)
    return root


@pytest.fixture
def mixed(tmp_path):
    return fill(tmp_path / "mixed", side_by_side=True)


@pytest.fixture(params=["side_by_side", "two_folders"])
def pairs(tmp_path, request):
    return fill(tmp_path, request.param == "side_by_side")


def loader_of(root, decode, *, preprocess="resize_and_crop", batch_size=5, workers=None, **options):
    transform = Torchvision(image_size=32, preprocess=preprocess)
    data = PairedImages(
        root=str(root), transform=transform, batch_size=batch_size, decode=decode, workers=workers, **options
    )
    return data.train_dataloader()


def epochs(loader, count=2):
    torch.manual_seed(0)
    return [batch for _ in range(count) for batch in loader]


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.names == theirs.names
        assert torch.equal(mine.input_NCHW, theirs.input_NCHW)
        assert torch.equal(mine.target_NCHW, theirs.target_NCHW)


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize(
    ("preprocess", "batch_size"), [("resize_and_crop", 5), ("crop", 12), ("scale_width_and_crop", 1), ("none", 1)]
)
def test_the_batches_are_those_of_the_cpu(pairs, preprocess, batch_size, direction):
    options = {"preprocess": preprocess, "batch_size": batch_size, "direction": direction}
    found = loader_of(pairs, "gpu", workers=3, **options)
    assert_same(epochs(found), epochs(loader_of(pairs, "cpu", **options)))
    files = 9 if any(pairs.glob("train/*.jpg")) else 2 * 9
    assert found.dataset.batches_on_gpu._decoder.files == 2 * files


def test_it_goes_on_where_an_epoch_was_stopped(mixed):
    expected = epochs(loader_of(mixed, "gpu"))
    stopped, resumed = loader_of(mixed, "gpu"), loader_of(mixed, "gpu")
    torch.manual_seed(0)
    next(batches := iter(stopped))
    resumed.load_state_dict(stopped.state_dict() | {"batches": 1})
    batches.close()
    assert_same([batch for _ in range(2) for batch in resumed], expected[1:])


@pytest.mark.parametrize("stop", ["closed", "an error"])
def test_an_epoch_that_is_stopped_leaves_no_thread(mixed, stop, monkeypatch):
    before = threading.active_count()
    batches = iter(loader_of(mixed, "gpu", batch_size=1, workers=4))
    next(batches)
    assert threading.active_count() > before
    if stop == "closed":
        batches.close()
    else:
        monkeypatch.setattr(Decoder, "decode", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(batches)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("preprocess", "spoil"),
    [
        ("resize_and_crop", lambda path: path.write_bytes(path.read_bytes()[:-1000])),
        ("resize_and_crop", lambda path: save(picture(99, 40), path)),
        ("resize_and_crop", lambda path: path.unlink()),
        ("crop", lambda path: save(picture(56, 28), path)),
    ],
    ids=["damaged", "odd width", "missing", "too small"],
)
def test_what_is_wrong_is_said_as_by_the_cpu(mixed, preprocess, spoil):
    path, said = mixed / "train/03.jpg", []
    loaders = [loader_of(mixed, decode, preprocess=preprocess, batch_size=4) for decode in ("gpu", "cpu")]
    spoil(path)
    for loader in loaders:
        with pytest.raises(ValueError, match=str(path)) as error:
            epochs(loader)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_images_of_several_sizes_make_no_batch(mixed):
    save(picture(200, 80), mixed / "train/03.jpg")
    for decode in ("gpu", "cpu"):
        with pytest.raises(ValueError, match="pixels, which makes no batch: use batch_size=1"):
            epochs(loader_of(mixed, decode, preprocess="none", batch_size=12))


class Shifted(Torchvision):
    """A transform of somebody else's."""

    def load(self, frame_HWC):
        return super().load(255 - frame_HWC)


def test_who_decodes_is_said(mixed, pair_folder, monkeypatch, capsys):
    def choose(decode="auto", device=GPU, root=mixed, transform=Torchvision, **options):
        dataset = PairedImages(root=str(root), transform=transform(image_size=32), **options).dataset("train")
        decoder = choice.gpu_decoder(dataset, decode=decode, device=device)
        return decoder is not None, capsys.readouterr().out

    def unfit(reason):
        return False, f"the CPU decodes the training pairs, because {reason}\n"

    assert choose("auto", torch.device("cpu")) == choose("cpu") == (False, "")
    yes = "the GPU decodes the training pairs in each epoch, because they are not kept and it has JPEG engines\n"
    assert choose() == choose("gpu") == (True, yes)
    assert choose(transform=Shifted) == unfit("Shifted loads images in its own way")
    grey = "a GPU decodes to RGB, and data.input_channels or data.target_channels is not 3"
    assert choose(input_channels=1) == unfit(grey)
    assert choose(root=pair_folder) == unfit("a GPU can decode only 0 of 4 pairs that were checked")
    monkeypatch.setattr(cvcuda, "unavailable", lambda: "CV-CUDA cannot be used (no)")
    assert choose() == unfit("CV-CUDA cannot be used (no)")
    monkeypatch.setattr(choice, "NvJpegDecoder", NvJpegDecoder)
    with pytest.raises(ValueError, match=r"^data\.decode=gpu cannot be used, because there is no GPU.*: use data\.dec"):
        choose("gpu", torch.device("cpu"))


def test_what_is_kept_is_not_decoded_again(mixed):
    with pytest.raises(ValueError, match=r"^data\.decode=gpu needs pairs that are not kept in memory: add data\.cache"):
        loader_of(mixed, "gpu", cache="ram")
