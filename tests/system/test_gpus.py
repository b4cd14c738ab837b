"""What the driver tells without torch."""

import ctypes

import pytest

from p2p.system.gpus import wake_gpu


class Driver:
    """Of a machine with two GPUs: notes on which one a context is made."""

    def __init__(self, broken=False):
        self.contexts, self._broken = [], broken

    def cuInit(self, flags):
        return 100 if self._broken else 0

    def cuDeviceGet(self, device, number):
        device._obj.value = 40 + number
        return 0 if number < 2 else 101

    def cuDevicePrimaryCtxRetain(self, context, device):
        self.contexts.append(device.value)
        return 0


@pytest.mark.parametrize(
    ("device", "contexts"), [("auto", [40]), ("cuda", [40]), ("cuda:1", [41]), ("cuda:2", []), ("cpu", [])]
)
def test_a_context_is_made_on_the_device_alone(device, contexts, monkeypatch):
    driver = Driver()
    monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": driver}.__getitem__)
    wake_gpu(device)
    assert driver.contexts == contexts


def test_without_a_driver_or_with_a_broken_one_nothing_is_said(monkeypatch):
    driver = Driver(broken=True)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    wake_gpu("auto")
    assert not driver.contexts

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    wake_gpu("auto")
