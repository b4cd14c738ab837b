"""A codec from outside: one file and one YAML, and both pipelines take it."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from p2p.codecs.codec import GpuCodec
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.config.cli import CONF
from p2p.data.pairs import find_inputs
from p2p.pipelines import overlap, sequential
from tests.pipelines.conftest import Negative, files, stages_for

FILE = """
import numpy as np


class Ppm:
    suffix = ".ppm"

    def __init__(self, white):
        self._white = white

    def decode(self, data, *, channels=3):
        if not data.startswith(b"P6"):
            raise ValueError("it is no portable pixmap")
        _, size, _, pixels = data.split(b"\\n", 3)
        width, height = map(int, size.split())
        return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)

    def encode(self, frame_HWC):
        height, width, _ = frame_HWC.shape
        return b"P6\\n%d %d\\n%d\\n" % (width, height, self._white) + frame_HWC.tobytes()

    def check_channels(self, channels):
        if channels != 3:
            raise ValueError("a portable pixmap has 3 channels")
"""


@pytest.mark.parametrize(("run", "options"), [(sequential.run, {}), (overlap.run, {"workers": 1})])
def test_a_codec_of_another_package(tmp_path, monkeypatch, run, options):
    (tmp_path / "portable.py").write_text(FILE)
    (tmp_path / "conf/codec").mkdir(parents=True)
    (tmp_path / "conf/codec/ppm.yaml").write_text("_target_: portable.Ppm\nwhite: 255\n")
    monkeypatch.syspath_prepend(tmp_path)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("infer", [f"hydra.searchpath=[file://{tmp_path}/conf]", "codec=ppm"])
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for index, image in enumerate(images):
        (tmp_path / f"in/{index}.ppm").write_bytes(b"P6\n16 16\n255\n" + image.tobytes())
    (tmp_path / "in/5.ppm").write_bytes(b"P3")
    stages = stages_for(Negative(), tmp_path / "out", codec=instantiate(cfg.codec), image_size=16)
    run(find_inputs(str(tmp_path / "in")), stages, batch_size=2, **options)
    expected = {f"{index}.ppm": b"P6\n16 16\n255\n" + (255 - image).tobytes() for index, image in enumerate(images)}
    assert files(tmp_path / "out") == expected
    assert stages.failures == {"5": f"cannot read {tmp_path}/in/5.ppm: it is no portable pixmap"}


def test_which_codecs_decode_on_a_gpu():
    assert isinstance(NvJpeg(), GpuCodec) and not isinstance(Fast(), GpuCodec)
