"""Choose the device of a command, and say why if it is not a GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2p.system.cores import available_cores
from p2p.system.gpus import gpu_addresses
from p2p.system.plural import counted

if TYPE_CHECKING:
    import torch

NO_GPU = ("Found no NVIDIA driver", "Torch not compiled with CUDA")  # nobody expects a GPU where torch says this


def check_device(name: str) -> None:
    """Raise a ValueError if no device is called that."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(name)):
        raise ValueError(f"device={name} is not known: use auto, cpu or cuda, or cuda:1 for the second GPU")


def pick_device(name: str) -> torch.device:
    """As `find_device`; a GPU becomes torch's current one, on which backends build and measure."""
    import torch

    device = find_device(name)
    if device.index is not None:
        torch.cuda.set_device(device)
    return device


def find_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:1", say -> the device.

    "auto" is a GPU, or else the CPU, and says why where a driver promises a GPU that torch cannot use.

    Raises:
        ValueError: another name, or a GPU that is not there.
    """
    import torch  # here: the name alone is checked before that takes its seconds

    name = str(name)
    check_device(name)
    if name == "cpu":
        return torch.device("cpu")
    reason = reason_against_gpu()
    if reason is not None:
        if name != "auto":
            raise ValueError(f"device={name} cannot be used, because {reason}: use device=cpu")
        if surprising(reason):
            print(f"on the CPU, because {reason}")
        return torch.device("cpu")
    device = torch.device("cuda" if name == "auto" else name)
    if device.index is not None:
        check_numbers([device.index], setting=f"device={name}", instead="device=cuda:0")
    return device


def find_devices(device: str, devices: int | str | Sequence[int]) -> list[str]:
    """The devices that share the work, such as ["cuda:0", "cuda:1"], or "cpu" for each process; `device` alone for one.

    Asks the driver how many GPUs there are, and imports torch only to say why there are none.

    Args:
        device: "auto", "cpu" or "cuda", or "cuda:1", say, which is one.
        devices: how many, "auto" for all GPUs, or the numbers of some.

    Raises:
        ValueError: there are not so many, or it is no number of devices.
    """
    if devices == 1:
        return [device]
    shown = str(devices).replace(" ", "")
    if isinstance(devices, (int, str)):
        if devices != "auto" and (not isinstance(devices, int) or devices < 1):
            raise ValueError(
                f"devices={shown} is not known: use a number from 1 on, auto, or GPUs by number as in [0,2]"
            )
        count = None if isinstance(devices, str) else devices
        numbers = None
    else:
        count, numbers = len(devices), [*devices]
        if not all(type(each) is int for each in numbers) or min(numbers, default=-1) < 0 or len({*numbers}) < count:
            raise ValueError(f"devices={shown} cannot be: name each GPU once, by its number from 0 on")
    if ":" in device:
        raise ValueError(f"device={device} is one GPU: with devices={shown} use device=cuda")
    if device == "cpu":
        if numbers is not None:
            raise ValueError(f"devices={shown} names GPUs, and device=cpu has none: use devices={count}")
        if count is not None and count > (most := max(2, available_cores())):
            cores = counted(available_cores(), "core")
            raise ValueError(f"devices={shown} is too large for {cores}: use {most} or less")
        return [device] * (count or 1)
    found = len(gpu_addresses())
    if count is None:
        return [f"cuda:{number}" for number in range(found)] if found > 1 else [device]
    if not found:
        reason = reason_against_gpu() or "the driver finds no GPU"
        raise ValueError(f"devices={shown} cannot be used, because {reason}: use device=cpu devices={count}")
    wanted = [*range(count)] if numbers is None else numbers
    check_numbers(wanted, setting=f"devices={shown}", instead="devices=auto", count=found)
    return [f"cuda:{number}" for number in wanted]


def check_trainer_device(accelerator: str, devices: int | str | Sequence[int]) -> str | None:
    """Why trainer.accelerator=auto trains on the CPU, where that needs saying; None otherwise.

    Raises:
        ValueError: a GPU is asked for that is not there.
    """
    if accelerator not in ("auto", "gpu", "cuda"):
        return None
    reason = reason_against_gpu()
    if reason is not None:
        if accelerator != "auto":
            raise ValueError(
                f"trainer.accelerator={accelerator} cannot be used, because {reason}: use trainer=cpu, or trainer=auto"
            )
        return reason if surprising(reason) else None
    if not isinstance(devices, str):  # which Lightning takes in many ways, and judges
        numbers = range(devices) if isinstance(devices, int) else devices
        check_numbers(list(numbers), setting="trainer.devices", instead="trainer.devices=1")
    return None


def reason_against_gpu() -> str | None:
    """Why torch can use no GPU here, as the end of a sentence; None if it can."""
    import torch

    if torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()  # says why, and is_available only warns
    except (RuntimeError, AssertionError) as error:
        said = str(error).strip().partition(". ")[0].rstrip(".")
    else:
        said = "it finds none"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not said.startswith(NO_GPU):
        return f"CUDA_VISIBLE_DEVICES='{hidden}' hides every GPU from it (torch says: {said})"
    return f"torch says: {said}"


def surprising(reason: str) -> bool:
    """Whether one may have expected a GPU here, as on a machine that has a driver."""
    return not any(said in reason for said in NO_GPU)


def check_numbers(wanted: list[int], *, setting: str, instead: str, count: int | None = None) -> None:
    """Raise a ValueError if this machine has no GPU of one of those numbers; None: torch counts those that it has."""
    if count is None:
        import torch

        count = torch.cuda.device_count()
    missing = [number for number in wanted if number >= count]
    if missing:
        have = f"{counted(count, 'GPU')}, cuda:0{f' to cuda:{count - 1}' if count > 1 else ''}"
        raise ValueError(f"{setting} asks for cuda:{missing[0]}, and this machine has {have}: use {instead}")
