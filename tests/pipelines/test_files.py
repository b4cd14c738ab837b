"""What is written: whole files, new or in place of others, at any size."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from p2p.codecs.pillow import Pillow
from p2p.data.pairs import Pair, Source, find_inputs
from p2p.data.transforms.sizing import to_size
from p2p.pipelines import sequential
from tests.pipelines.conftest import Negative, files, stages_for


def test_other_channels_at_another_size():
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 5), dtype=np.uint8)
    planes = [Image.fromarray(frame[..., c]).resize((13, 21), Image.Resampling.BICUBIC) for c in range(5)]
    result = to_size(frame, 21, 13)
    assert result.dtype == np.uint8 and result.shape == (21, 13, 5)
    assert (result == np.stack(planes, axis=2)).all()


@pytest.mark.parametrize("without", [None, "O_TMPFILE", "the file system's support"])
def test_a_file_is_new_or_replaced_wherever_it_is_written(tmp_path, monkeypatch, without):
    if without == "O_TMPFILE":
        monkeypatch.delattr(os, "O_TMPFILE")
    elif without:

        def refuse(path, flags, *mode, open=os.open):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return open(path, flags, *mode)

        monkeypatch.setattr("os.open", refuse)
    stages = stages_for(Negative(), tmp_path / "out", codec=Pillow(format="npy"), image_size=16)
    (tmp_path / "out").mkdir()
    for value in (1, 2):
        stages.save(Pair("deep/x", Source(tmp_path)), np.full((16, 16, 3), value, np.uint8), (16, 16))
        assert (np.load(tmp_path / "out/deep/x.npy") == value).all()
    assert list(files(tmp_path / "out")) == ["deep/x.npy"]
    assert (tmp_path / "out/deep/x.npy").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("named", [False, True])
def test_a_failed_write_leaves_no_part_of_a_file(engine, inputs, tmp_path, monkeypatch, named):
    stages = stages_for(engine, tmp_path / "out")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if named:
        monkeypatch.setattr("p2p.system.atomic.nameless", lambda *_: False)
    monkeypatch.setattr("pathlib.Path.replace" if named else "os.link", full)
    with pytest.raises(OSError, match="No space left"):
        sequential.run(find_inputs(str(inputs)), stages, batch_size=2)
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("reason", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT])
def test_where_files_cannot_be_linked_they_are_renamed(engine, inputs, tmp_path, monkeypatch, reason):
    def refuse(*_, **__):
        raise OSError(reason, "no link")

    monkeypatch.setattr("os.link", refuse)
    stages = stages_for(engine, tmp_path / "out")
    sequential.run(find_inputs(str(inputs)), stages, batch_size=2)
    assert files(tmp_path / "out") and not stages.failures
    assert all(name.endswith(".png") and not name.startswith(".") for name in files(tmp_path / "out"))
