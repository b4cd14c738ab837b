"""What of the backend can be tested without its library: how it speaks to version 2.14, whose names these are."""

from types import SimpleNamespace

import torch

from p2p.deploy.torch_tensorrt import keep_kernels


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
    runtime = SimpleNamespace(RuntimeSettings=lambda runtime_cache: runtime_cache, **names)
    return SimpleNamespace(runtime=runtime, ENABLED_FEATURES=SimpleNamespace(tensorrt_rtx=rtx))


def test_engines_start_with_the_kernels_beside_the_program_even_if_that_file_is_damaged(tmp_path):
    engines = [Engine(), Engine()]
    path = tmp_path / "generator.kernels"
    kernels = keep_kernels([torch.zeros(1), *engines], path, library(rtx=True, RuntimeCache=RuntimeCache))
    assert (kernels.path, kernels.autosave_on_del, kernels.loaded) == (str(path), True, 1)
    assert all(engine.settings is kernels for engine in engines)


def test_where_nothing_is_compiled_later_or_the_version_cannot_hand_it_over_nothing_happens(tmp_path):
    for old in (library(rtx=True), library(rtx=False, RuntimeCache=RuntimeCache)):
        engine = Engine()
        assert keep_kernels([engine], tmp_path / "generator.kernels", old) is None
        assert engine.settings is None
