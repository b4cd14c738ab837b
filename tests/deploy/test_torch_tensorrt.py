"""What of the backend can be tested without its library: how it speaks to version 2.14, whose names these are."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch

from p2p.deploy.backends import torch_tensorrt
from p2p.deploy.backends.torch_tensorrt import keep_kernels
from p2p.deploy.rewrite import Frames


class RuntimeCache:
    def __init__(self, *, path, autosave_on_del):
        self.path, self.autosave_on_del, self.loaded = path, autosave_on_del, 0

    def load(self):
        self.loaded += 1
        raise ValueError("damaged")


class Engine:
    settings = None

    def update_runtime_settings(self, settings):
        self.settings = settings


def library(*, rtx, **names):
    runtime = SimpleNamespace(RuntimeSettings=lambda **settings: settings, **names)
    return SimpleNamespace(runtime=runtime, ENABLED_FEATURES=SimpleNamespace(tensorrt_rtx=rtx))


def test_engines_start_with_the_kernels_beside_the_program_even_if_that_file_is_damaged(tmp_path):
    engines = [Engine(), Engine()]
    path = tmp_path / "generator.kernels"
    kernels = keep_kernels([torch.zeros(1), *engines], path, library(rtx=True, RuntimeCache=RuntimeCache))
    assert (kernels.path, kernels.autosave_on_del, kernels.loaded) == (str(path), True, 1)
    expected = {"dynamic_shapes_kernel_specialization_strategy": "eager", "runtime_cache": kernels}
    assert all(engine.settings == expected for engine in engines)


def test_where_nothing_is_compiled_later_or_the_version_cannot_hand_it_over_nothing_happens(tmp_path):
    for old in (library(rtx=True), library(rtx=False, RuntimeCache=RuntimeCache)):
        engine = Engine()
        assert keep_kernels([engine], tmp_path / "generator.kernels", old) is None
        assert engine.settings is None


def test_a_programs_name_says_whether_it_takes_frames(tmp_path, monkeypatch):
    """With a program that needs no TensorRT, and no graph around it."""
    monkeypatch.setattr(torch_tensorrt, "_import", lambda: library(rtx=False))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch_tensorrt, "capture", lambda program, *, device, dtype: (program, dtype))
    network = torch.nn.Conv2d(3, 2, 3).half().eval()
    frames = torch.randint(0, 256, (1, 8, 9, 3), dtype=torch.uint8)
    floats = torch.zeros(1, 3, 8, 9).half()
    program = torch.export.export(network, (floats,))
    for name, taken, images, expected in (
        ("generator.pt2", torch.float16, floats, network(floats)),
        ("generator.frames.pt2", torch.uint8, frames, Frames(network)(frames)),
    ):
        torch.export.save(program, tmp_path / name)
        run, dtype = torch_tensorrt.load(tmp_path / name, device=torch.device("cpu"))
        assert dtype == taken
        assert torch.equal(run(images), expected)
