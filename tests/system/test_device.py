"""Which device a command takes, and what it says where there is none: torch is told that its GPUs are others."""

import warnings

import pytest
import torch

from p2p.system.device import check_trainer_device, pick_device

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading"
    " and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"


@pytest.fixture
def torch_finds(monkeypatch):
    """Have torch find so many GPUs, or none for a reason that it tells as it really does, by a warning as well."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def finds(count, reason=None):
        def init():
            if reason is not None:
                raise RuntimeError(reason)

        current = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        return current

    return finds


def test_a_gpu_that_is_there(torch_finds):
    current = torch_finds(2)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cpu") == torch.device("cpu")
    assert current == []
    assert pick_device("cuda:1") == torch.device("cuda:1")
    assert current == [torch.device("cuda:1")]


def test_a_gpu_that_is_not_there(torch_finds):
    torch_finds(1)
    with pytest.raises(ValueError, match=r"^device=cuda:1 asks for cuda:1, and this machine has 1 GPU, cuda:0: use "):
        pick_device("cuda:1")
    torch_finds(4)
    with pytest.raises(ValueError, match=r"this machine has 4 GPUs, cuda:0 to cuda:3: use device=cuda:0$"):
        pick_device("cuda:4")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", 1])
def test_a_name_that_is_not_known(name):
    with pytest.raises(ValueError, match=rf"^device={name} is not known: use auto, cpu or cuda, or cuda:1 for "):
        pick_device(name)


def test_a_driver_that_is_too_old(torch_finds, capsys):
    torch_finds(0, TOO_OLD)
    why = r"torch says: The NVIDIA driver on your system is too old \(found version 11040\)"
    with pytest.raises(ValueError, match=rf"^device=cuda cannot be used, because {why}: use device=cpu$"):
        pick_device("cuda")
    with pytest.raises(ValueError, match=rf"^trainer.accelerator=gpu cannot be used, because {why}: use trainer=cpu"):
        check_trainer_device("gpu", 1)
    assert pick_device("auto") == torch.device("cpu")
    assert capsys.readouterr().out.count("on the CPU, because torch says: The NVIDIA driver") == 1
    assert "too old" in check_trainer_device("auto", 1)
    assert check_trainer_device("cpu", 1) is None


def test_gpus_that_are_hidden(torch_finds, monkeypatch, capsys):
    torch_finds(0, "No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(
        ValueError, match=r"^device=cuda cannot be used, because CUDA_VISIBLE_DEVICES='' hides every GPU"
    ):
        pick_device("cuda")
    pick_device("auto")
    assert "on the CPU, because CUDA_VISIBLE_DEVICES='' hides every GPU" in capsys.readouterr().out


def test_a_machine_without_a_gpu_needs_no_remark(torch_finds, monkeypatch, capsys):
    torch_finds(0, NO_DRIVER)
    for hidden in (None, ""):
        if hidden is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert pick_device("auto") == torch.device("cpu")
        assert check_trainer_device("auto", 1) is None
        with pytest.raises(ValueError, match=r"because torch says: Found no NVIDIA driver on your system: use"):
            pick_device("cuda")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("devices", [2, [1], [0, 1]])
def test_a_trainer_that_asks_for_a_second_gpu(torch_finds, devices):
    torch_finds(2)
    assert check_trainer_device("auto", devices) is None
    torch_finds(1)
    with pytest.raises(
        ValueError, match=r"^trainer.devices asks for cuda:1, .* has 1 GPU, cuda:0: use trainer.devices=1"
    ):
        check_trainer_device("gpu", devices)
    for fitting in (1, [0], "auto", -1, "0,"):
        assert check_trainer_device("gpu", fitting) is None
    torch_finds(0, NO_DRIVER)
    assert check_trainer_device("auto", devices) is None  # as many processes of the CPU


def test_torchs_warning_is_not_shown_beside_the_sentence():
    from p2p.config.cli import quiet_libraries

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn(f"CUDA initialization: {TOO_OLD}", UserWarning, stacklevel=1)
    assert shown == []
