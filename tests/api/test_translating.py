"""`translate(image)`: every kind of image in, the same kind out, with the bits of infer.py's files."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import p2p
from p2p.api.load import by_pytorch
from p2p.codecs.fast import Fast
from p2p.data.pairs import find_inputs
from p2p.data.transforms.sizing import Sizing
from p2p.deploy.engine import load_engine
from p2p.deploy.sizes import Sizes
from p2p.models.resnet import ResNet
from p2p.models.unet import UNet
from p2p.pipelines import sequential
from tests.api.conftest import CPU, exported, seeded
from tests.conftest import picture
from tests.pipelines.conftest import stages_for

RGB = np.asarray(picture(50, 40))
SIZED = np.asarray(picture(50, 40).resize((32, 32), Image.Resampling.BICUBIC))


def tensor(array):
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def not_exported(network, channels=(3, 3)):
    facts = {"source": Path("x"), "device": CPU, "norm_stats": "instance", "direction": "AtoB"}
    sizing = Sizing(image_size=32, preprocess="resize_and_crop")
    return by_pytorch(seeded(network), sizing=sizing, channels=channels, **facts)


@pytest.fixture
def photos(tmp_path):
    """Files of every mode and of several sizes and formats."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        picture(40 + index, 50, seed=index).save(folder / f"{index}.png")
        picture(32, 60 + index, seed=index).save(folder / f"{index}.jpg", quality=90)
    for mode in ("L", "P", "RGBA", "LA", "1"):
        picture(45, 45, seed=9).convert(mode).save(folder / f"mode-{mode}.png")
    for mode in ("CMYK", "YCbCr"):
        picture(45, 45, seed=9).convert(mode).save(folder / f"mode-{mode}.jpg")
    Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50) * 30).save(folder / "sixteen.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(60, 33, seed=5).save(folder / "turned.jpg", exif=turned)
    np.save(folder / "array.npy", np.asarray(picture(40, 40), np.float32) / 255)
    return folder


@pytest.mark.parametrize("restore_size", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_paths_and_pil_images_give_the_bits_of_the_files_of_infer(
    translate, folder, photos, tmp_path, restore_size, batch_size
):
    engine = load_engine(folder, device=CPU)
    stages = stages_for(engine, tmp_path / "out", codec=Fast(), restore_size=restore_size)
    pairs = find_inputs(str(photos))
    sequential.run(pairs, stages, batch_size=batch_size)
    assert len(pairs) == 18 and not stages.failures
    files = [pair.input.path for pair in pairs]
    found = translate(files, restore_size=restore_size, batch_size=batch_size)
    for pair, image in zip(pairs, found, strict=True):
        with Image.open(tmp_path / f"out/{pair.name}.png") as expected:
            assert (image.mode, image.size) == (expected.mode, expected.size)
            assert image.tobytes() == expected.tobytes(), pair.name
    images = [Image.open(path) for path in files if path.suffix != ".npy"]
    alike = [image for path, image in zip(files, found, strict=True) if path.suffix != ".npy"]
    again = translate(images, restore_size=restore_size, batch_size=batch_size)
    if batch_size == 1:  # other neighbours make other batches
        assert all(one.tobytes() == other.tobytes() for one, other in zip(again, alike, strict=True))


def test_the_two_halves_of_a_call_and_the_bytes_of_files(translate, photos):
    paths = sorted(path for path in photos.iterdir() if path.suffix != ".npy")
    prepared = [translate.prepare(path.read_bytes()) for path in paths]
    outputs = list(translate.translate(prepared, restore_size=True, batch_size=3))
    for path, output in zip(paths, outputs, strict=True):
        assert output.tobytes() == translate(path, restore_size=True).tobytes(), path
    with pytest.raises(ValueError, match=r"^cannot translate the image: it is not an image$"):
        translate.prepare(b"no")
    with pytest.raises(ValueError, match=r"^size=huge is not known"):
        translate.check(size="huge")


def test_the_same_image_of_every_kind(translate):
    """An array, a tensor and a PIL image of 8 bits give the same 8 bits; deeper kinds what rounds to them."""
    expected = np.asarray(translate(picture(50, 40)))
    assert expected.shape == (32, 32, 3) and expected.std() > 20
    assert (translate(RGB) == expected).all() and translate(RGB).dtype == np.uint8
    assert (translate(tensor(RGB)) == tensor(expected)).all() and translate(tensor(RGB)).dtype == torch.uint8
    for array in (SIZED.astype(np.uint16) * 257, SIZED.astype(np.float32) / 255, SIZED / 255):
        found = translate(array)
        assert (found.dtype, found.shape) == (array.dtype, (32, 32, 3))
        white = 65535 if array.dtype == np.uint16 else 1
        assert np.abs(found / white * 255 - expected).max() < 0.51
    for dtype, tolerance in ((torch.float32, 0.51), (torch.float64, 0.51), (torch.float16, 0.8), (torch.bfloat16, 3)):
        found = translate((tensor(SIZED) / 127.5 - 1).to(dtype))
        assert (found.dtype, found.shape) == (dtype, (3, 32, 32))
        assert np.abs((found.double() + 1).numpy() * 127.5 - expected.transpose(2, 0, 1)).max() < tolerance


def test_floats_are_not_rounded_on_their_way(translate, folder):
    input_CHW = (torch.rand(3, 32, 32) * 2 - 1) ** 5  # many are small, of more digits than their sum with 1 has
    assert torch.equal(translate(input_CHW), load_engine(folder, device=CPU)(input_CHW[None])[0])
    array = ((input_CHW + 1) / 2).permute(1, 2, 0).numpy()
    assert np.abs(translate(array) - ((translate(input_CHW) + 1) / 2).permute(1, 2, 0).numpy()).max() < 1e-5


def test_deep_images_are_resized_in_their_own_depth(translate):
    """As Pillow resizes each plane in float32."""
    array = RGB.astype(np.float32) / 255
    planes = [Image.fromarray(array[..., c]).resize((32, 32), Image.Resampling.BICUBIC) for c in range(3)]
    sized = np.clip(np.stack([np.asarray(plane) for plane in planes], axis=2), 0, 1)
    assert np.abs(translate(array) - translate(sized)).max() < 1e-5
    assert np.abs(translate(tensor(array) * 2 - 1) - (tensor(translate(sized)) * 2 - 1)).max() < 1e-4
    small = translate(array)
    planes = [Image.fromarray(small[..., c]).resize((50, 40), Image.Resampling.BICUBIC) for c in range(3)]
    large = np.clip(np.stack([np.asarray(plane) for plane in planes], axis=2), 0, 1)
    assert np.abs(translate(array, restore_size=True) - large).max() < 1e-5
    assert np.abs(translate(tensor(array) * 2 - 1, restore_size=True) - (tensor(large) * 2 - 1)).max() < 1e-4


def test_grey_images_become_three_equal_channels(translate):
    grey = RGB[..., 0]
    expected = translate(np.stack([grey] * 3, axis=2))
    assert (translate(grey) == expected).all() and (translate(grey[..., None]) == expected).all()
    assert (np.asarray(translate(Image.fromarray(grey))) == expected).all()
    assert (translate(torch.from_numpy(grey.copy())[None]) == tensor(expected)).all()
    assert (translate(np.stack([grey, grey])[..., None])[1] == expected).all()


def test_batches_come_back_as_batches(translate):
    frames = np.stack([np.asarray(picture(40, 50, seed=seed)) for seed in range(5)])
    one_by_one = np.stack([translate(frame) for frame in frames])
    assert np.abs(translate(frames).astype(int) - one_by_one).max() <= 1  # sums of other batches round differently
    assert (translate(frames, batch_size=1) == one_by_one).all()
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert (translate(images, batch_size=1).permute(0, 2, 3, 1).numpy() == one_by_one).all()
    assert translate(frames, restore_size=True).shape == frames.shape
    assert translate(images / 127.5 - 1, restore_size=True).shape == images.shape


def test_a_list_of_all_kinds_and_sizes(translate, tmp_path):
    picture(50, 40).save(tmp_path / "a.png")
    floats = torch.rand(2, 3, 32, 32) * 2 - 1
    images = [str(tmp_path / "a.png"), tmp_path / "a.png", RGB, picture(50, 40), floats, tensor(RGB), RGB[..., 0]]
    for batch_size in (None, 1, 2, 100):
        found = translate(images, batch_size=batch_size)
        assert [type(each) for each in found[:4]] == [Image.Image, Image.Image, np.ndarray, Image.Image]
        assert np.abs(np.asarray(found[0]).astype(int) - translate(RGB)).max() <= 1
        assert found[4].shape == floats.shape and found[4].dtype == torch.float32
        assert (translate(floats) - found[4]).abs().max() < 1e-5
        assert found[5].dtype == torch.uint8 and found[6].shape == (32, 32, 3)
    assert translate([]) == [] and len(translate((RGB, RGB))) == 2
    assert translate([RGB, picture(9, 70)], restore_size=True)[1].size == (9, 70)


def test_how_many_go_together():
    """As many as asked for, else 8, and what a program takes at most; a batch stays one."""
    translate = not_exported(ResNet(width=4, blocks=1))
    translate.max_batch = 6
    counts = []
    translate.network = lambda images: counts.append(len(images)) or -images
    for images, batch_size, expected in (
        ([RGB] * 9, None, [6, 3]),
        ([RGB] * 9, 4, [4, 4, 1]),
        (np.stack([RGB] * 9), None, [6, 3]),
        (np.stack([RGB] * 9), 5, [5, 4]),
        ([np.stack([RGB] * 3)] * 3, None, [6, 3]),
        ([np.stack([RGB] * 3), RGB, np.stack([RGB] * 8)], 4, [4, 4, 4]),
    ):
        counts.clear()
        translate(images, batch_size=batch_size)
        assert counts == expected
    translate.max_batch = None
    for images, expected in (([RGB] * 9, [8, 1]), (np.stack([RGB] * 9), [9])):
        counts.clear()
        translate(images)
        assert counts == expected
    translate.max_batch = 6
    with pytest.raises(ValueError, match=r"^batch_size=7 is out of range: use 1 to 6, or export again for more$"):
        translate(RGB, batch_size=7)


def test_a_program_may_use_its_output_again():
    """The first images stay what they were, of a batch that goes through the network in parts."""
    translate, buffer = not_exported(ResNet(width=4, blocks=1)), torch.zeros(1, 3, 32, 32)
    translate.network = lambda images: buffer.copy_(-images)
    levels = np.broadcast_to(np.array([255, 0], np.uint8).reshape(2, 1, 1, 1), (2, 32, 32, 3))
    assert (translate(levels, batch_size=1) == 255 - levels).all()


def test_sixteen_bits_are_rounded_to_the_nearest():
    translate = not_exported(ResNet(width=4, blocks=1))
    translate.network = lambda images: images * 0.77
    exact = ((SIZED / 127.5 - 1) * 0.77 + 1) * 32767.5
    assert np.abs(translate(SIZED.astype(np.uint16) * 257) - exact).max() < 0.51


def test_outputs_are_clipped_to_their_range():
    translate = not_exported(ResNet(width=4, blocks=1))
    translate.network = lambda images: images * 3
    for array, white in ((SIZED, 255), (SIZED.astype(np.uint16) * 257, 65535), (SIZED / 255, 1)):
        assert (translate(array).min(), translate(array).max()) == (0, white)
    found = translate(tensor(SIZED) / 127.5 - 1)
    assert (found.min(), found.max()) == (-1, 1)


def test_outputs_have_memory_of_their_own(translate):
    """In a bigger model: a result can be trained on, changed, and saved without its batch."""
    images = [torch.rand(3, 32, 32) * 2 - 1 for _ in range(4)]
    found = translate(images)
    assert all(each.untyped_storage().nbytes() == 4 * 3 * 32 * 32 for each in found)
    layer = torch.nn.Conv2d(3, 1, 3)
    layer(found[0]).sum().backward()
    assert layer.weight.grad is not None
    found[1].zero_()
    assert translate(images)[1].std() > 0


def test_what_the_caller_has_set_changes_nothing(translate):
    """Neither autocast nor torch's default dtype: the precision is what it says."""
    plain = not_exported(UNet(image_size=32, width=8))
    expected = plain(RGB), translate(RGB)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all((each(RGB) == one).all() for each, one in zip((plain, translate), expected, strict=True))
    torch.set_default_dtype(torch.float64)
    try:
        double = not_exported(UNet(image_size=32, width=8))
        assert double.precision == "float32" and double(RGB).dtype == np.uint8
    finally:
        torch.set_default_dtype(torch.float32)


def test_memory_that_is_not_there_is_not_asked_for(translate):
    """Of views that are larger than any memory."""
    dot = np.zeros((1, 1, 3), np.uint8)
    for image, sentence in (
        (
            np.broadcast_to(dot, (10**6, 10**6, 3)),
            "it is 1000000x1000000 pixels, which takes 10000.0 GB of memory",
        ),
        (np.broadcast_to(dot, (10**9, 5, 5, 3)), "it is a batch of 1,000,000,000 images, which takes 36864.0 GB of"),
    ):
        with pytest.raises(ValueError, match=f"^cannot translate the image: {sentence}"):
            translate(image)


def test_other_channels(tmp_path):
    translate = not_exported(UNet(in_channels=2, out_channels=4, image_size=32, width=4), channels=(2, 4))
    assert translate(np.zeros((50, 40, 2), np.float32)).shape == (32, 32, 4)
    assert translate(torch.zeros(2, 50, 40), restore_size=True).shape == (4, 50, 40)
    np.save(tmp_path / "x.npy", np.zeros((50, 40, 2), np.uint8))
    for image, sentence in (
        (picture(32, 32), "cannot translate the image: the model takes 2 channels, and it is a picture: use an array"),
        (tmp_path / "x.npy", "the model gives 4 channels, which no PIL image has: use an array or a tensor"),
        (RGB, r"shape \(40, 50, 3\): an image is \(H, W, 2\), a batch \(N, H, W, 2\)$"),
        (RGB[..., 0], r"it is an array of shape \(40, 50\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            translate(image)


def test_a_grey_model():
    translate = not_exported(UNet(in_channels=1, out_channels=1, image_size=32, width=4), channels=(1, 1))
    grey = np.asarray(picture(50, 40).convert("L"))
    expected = translate(grey)
    assert expected.shape == (32, 32) and translate(grey[..., None]).shape == (32, 32, 1)
    assert translate(picture(50, 40)).mode == "L" and (np.asarray(translate(picture(50, 40))) == expected).all()
    assert (translate(torch.from_numpy(grey.copy())[None])[0].numpy() == expected).all()


def test_threads_share_a_model():
    """They take turns at the network, and each gets its own images back."""
    translate, inside, together = not_exported(ResNet(width=4, blocks=1)), [], []

    def network(images):
        inside.append(None)
        time.sleep(0.002)
        together.append(len(inside))
        inside.pop()
        return images

    translate.network = network
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(translate, [np.full((32, 32, 3), level, np.uint8) for level in range(40)]))
    assert [np.unique(each).tolist() for each in found] == [[level] for level in range(40)]
    assert set(together) == {1}


def nan(array):
    return np.where(array > 0.9, np.nan, array)


FLOATS = RGB.astype(np.float32) / 255


@pytest.mark.parametrize(
    "image",
    [
        RGB[::-1, ::-1],
        RGB[:, ::2],
        np.asfortranarray(RGB),
        np.broadcast_to(RGB[:1, :1], (40, 50, 3)),
        (RGB.astype(np.uint16) * 257).astype(">u2"),
        FLOATS.astype(">f4")[::-1],
        FLOATS.astype(np.float16),
        RGB[:1, :1],
        RGB[:1],
        np.repeat(RGB, 40, axis=1)[:3],
    ],
    ids=[*("mirrored", "strided", "columns", "read-only", "big-endian", "big floats", "half", "1x1", "row", "flat")],
)
def test_arrays_in_any_memory(translate, image):
    image.flags.writeable = False
    found = translate(image)
    assert found.dtype == image.dtype and (found == translate(image.copy())).all()
    assert translate(image, restore_size=True).shape == image.shape


def test_tensors_in_any_memory(translate):
    image = tensor(FLOATS) * 2 - 1
    for same in (image.flip(1), image[:, ::2], image.permute(1, 2, 0).contiguous().permute(2, 0, 1), image.half()):
        assert torch.equal(translate(same), translate(same.clone(memory_format=torch.contiguous_format)))
    with torch.no_grad():
        assert translate(image.clone().requires_grad_()).requires_grad is False
    with torch.inference_mode():
        assert torch.equal(translate(image), translate(image.clone()))


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (FLOATS * 255, "it holds floats outside of [0, 1]: scale them to that range"),
        (FLOATS * 2 - 1, "it holds floats outside of [0, 1]: scale them to that range"),
        (nan(FLOATS), "it holds floats outside of [0, 1]: scale them to that range"),
        (RGB > 9, "it holds bool: use uint8, uint16, or float32 in [0, 1]"),
        (RGB.astype(int), "it holds int64: use uint8, uint16, or float32 in [0, 1]"),
        (RGB.astype(np.uint32), "it holds uint32 from "),
        (RGB.astype(complex), "it holds complex128: use"),
        (RGB.astype(object), "it holds object: use"),
        (
            RGB[..., :2],
            "it is an array of shape (40, 50, 2): an image is (H, W, 3), a batch (N, H, W, 3), a grey image",
        ),
        (RGB.transpose(2, 0, 1), "it is an array of shape (3, 40, 50): an image is (H, W, 3)"),
        (RGB[:0], "it is an array of shape (0, 50, 3)"),
        (np.zeros((0, 5, 5, 3), np.uint8), "it is an array of shape (0, 5, 5, 3)"),
        (np.uint8(3) * np.ones(5, np.uint8), "it is an array of shape (5,)"),
        (tensor(FLOATS) * 255, "it holds floats from "),
        (tensor(FLOATS) / 0, "it holds floats from "),
        (tensor(RGB).long(), "it is a tensor of strided, int64 on cpu: use a dense one, uint8 in [0, 255] or floats"),
        (tensor(RGB) > 9, "it is a tensor of strided, bool on cpu"),
        (tensor(FLOATS).to_sparse(), "it is a tensor of sparse_coo, float32 on cpu"),
        (torch.empty(3, 32, 32, device="meta"), "it is a tensor of strided, float32 on meta"),
        (torch.zeros(32, 32), "it is a tensor of shape (32, 32): an image is (3, H, W), a batch (N, 3, H, W)"),
        (torch.from_numpy(RGB.copy()), "it is a tensor of shape (40, 50, 3)"),
        (torch.zeros(0, 3, 32, 32), "it is a tensor of shape (0, 3, 32, 32)"),
        (torch.zeros(3, 32, 32, requires_grad=True), "it requires a gradient, and a translation computes none"),
        (
            None,
            "it is of type NoneType: use a PIL image, a NumPy array, a torch tensor, the path of a file, or one flat",
        ),
        (b"x.png", "it is not an image"),
        ({"image": RGB}, "it is of type dict: use"),
        (iter([RGB]), "it is of type list_iterator: use"),
        (Image.new("RGB", (0, 5)), ""),
    ],
    ids=range(28),
)
def test_what_is_no_image_gets_a_sentence(translate, image, sentence):
    for given, name in ((image, "the image"), ([RGB, image], "images[1]"), ((RGB, RGB, image), "images[2]")):
        with pytest.raises(ValueError) as error:
            translate(given)
        assert str(error.value).startswith(f"cannot translate {name}: {sentence}")
        assert "\n" not in str(error.value)


def test_further_mistakes(translate, tmp_path):
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    picture(32, 32).save(tmp_path / "cut.png")
    cut = (tmp_path / "cut.png").read_bytes()[:-900]
    (tmp_path / "cut.png").write_bytes(cut)
    closed = Image.open(tmp_path / "cut.png")
    for image, sentence in (
        ([[RGB]], r"^cannot translate images\[0\]: it is of type list: use .* one flat list of them$"),
        ("~no-such-user/x.png", "^cannot read ~no-such-user/x.png: No such file or directory$"),
        ("nowhere.png", "^cannot read nowhere.png: No such file or directory$"),
        (tmp_path, "is a folder: give a list of its files"),
        (str(tmp_path / "damaged.jpg"), "^cannot read .*damaged.jpg: it is "),
        ([RGB, tmp_path / "cut.png"], "^cannot read .*cut.png: it is damaged: "),
        ([RGB, closed], r"^cannot translate images\[1\]: it is damaged: "),
    ):
        with pytest.raises(ValueError, match=sentence):
            translate(image)
    for options, sentence in (
        ({"size": "output"}, "^size=output is not known: use model, input or tile$"),
        ({"batch_size": 0}, "^batch_size=0 is out of range: use 1 or more$"),
        ({"batch_size": 2.5}, "^batch_size=2.5 is out of range: use 1 or more$"),
        ({"batch_size": "8"}, "^batch_size=8 is out of range: use 1 or more$"),
    ):
        with pytest.raises(ValueError, match=sentence):
            translate(RGB, **options)


def test_the_path_of_the_user_is_expanded(translate, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    picture(32, 32).save(tmp_path / "x.png")
    assert translate("~/x.png").tobytes() == translate(Path(tmp_path / "x.png")).tobytes()


def test_at_their_own_sizes_as_infer_writes_them(tmp_path):
    """Of a program of any size, of weights, and of floats, which are not rounded."""
    network = seeded(UNet(image_size=32, width=8))
    folder = exported(tmp_path / "export", network, stride=32, sizes=Sizes([32, 32], [32, 32], [256, 256], 32))
    program, weights = p2p.load(folder, device="cpu"), not_exported(network)
    photo = picture(70, 45)
    photo.save(tmp_path / "a.png")
    for size in ("input", "tile"):
        stages = stages_for(load_engine(folder, device=CPU), tmp_path / size, size=size)
        sequential.run(find_inputs(str(tmp_path / "a.png")), stages, batch_size=8)
        expected = np.asarray(Image.open(tmp_path / size / "a.png"))
        assert (np.asarray(program(photo, size=size)) == expected).all() and expected.std() > 20
        for translate in (program, weights):
            found = translate([tmp_path / "a.png", photo, np.stack([np.asarray(photo)] * 2)], size=size)
            for each in [*found[:2], *found[2]]:
                assert np.abs(np.asarray(each).astype(int) - expected).max() <= 1
            floats = translate(tensor(np.asarray(photo)) / 127.5 - 1, size=size)
            assert np.abs((floats + 1) * 127.5 - tensor(expected)).max() <= 1.01
            assert ((floats + 1) * 127.5 % 1).abs().std() > 0.1
    with pytest.raises(ValueError, match="cannot translate the image: it is 300x20 pixels, and the exported program"):
        program(picture(300, 20), size="input")


@pytest.mark.parametrize(
    "options",
    [{"fit": "pad"}, {"fit": "pad", "restore_size": True}, {"size": "tile", "tile_stats": "image"}],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_fit_and_tile_stats_as_infer_writes_them(tmp_path, options):
    network = seeded(UNet(image_size=32, width=8))
    folder = exported(tmp_path / "export", network, stride=32)
    photo = picture(70, 45)
    photo.save(tmp_path / "a.png")
    stages = stages_for(load_engine(folder, device=CPU), tmp_path / "out", **options)
    sequential.run(find_inputs(str(tmp_path / "a.png")), stages, batch_size=8)
    expected = np.asarray(Image.open(tmp_path / "out/a.png"))
    translate = p2p.load(folder, device="cpu")
    assert (np.asarray(translate(photo, **options)) == expected).all() and expected.std() > 20
    others = {key: value for key, value in options.items() if key not in ("fit", "tile_stats")}
    assert (
        np.asarray(translate(photo.resize((32, 32)), fit="pad")) == np.asarray(translate(photo.resize((32, 32))))
    ).all()
    assert np.asarray(translate(photo, **others)).tobytes() != expected.tobytes()


def test_what_cannot_be_at_its_own_size(translate):
    for options, said in (
        ({"size": "tile", "fit": "pad"}, "fit=pad applies only to size=model, and size=tile keeps sizes"),
        ({"tile_stats": "image"}, "tile_stats=image applies only to size=tile, not to size=model"),
        ({"fit": "crop"}, "fit=crop is not known: use stretch or pad"),
        ({"tile_stats": "all"}, "tile_stats=all is not known: use tile or image"),
        ({"size": "input"}, "size=input needs a program that takes any size"),
        ({"size": "tile", "restore_size": True}, "restore_size=True applies only to size=model"),
    ):
        with pytest.raises(ValueError, match=said):
            translate(RGB, **options)


def test_a_generator_that_enlarges_has_no_other_size_than_the_models():
    """Else the upper left quarter of what it makes would come back as the whole."""
    twice = not_exported(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Upsample(scale_factor=2)))
    assert twice(RGB).shape == (64, 64, 3)
    for size in ("input", "tile"):
        with pytest.raises(ValueError, match=rf"^size={size} needs a generator whose outputs .* and that of x makes"):
            twice(RGB, size=size)
