"""A disk that is full while logs are written to it: one sentence with a path, and no stack trace of a thread."""

import threading

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from p2p.config.cli import quiet_libraries
from p2p.config.explain import explain
from p2p.system.atomic import disk_of


def test_a_log_that_cannot_be_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # pytest has its own
    quiet_libraries()
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.flush()
    (events,) = tmp_path.rglob("events.*")
    events.unlink()
    events.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised, disk_of(tmp_path):
        for step in range(1000):
            logger.log_metrics({"loss": 1.0}, step)
        logger.experiment.flush()
    assert explain(raised.value, "train").startswith(f"{tmp_path} cannot be written: the disk is full")
    assert "Traceback" not in capfd.readouterr().err


def test_a_bug_in_a_thread_keeps_its_stack_trace(monkeypatch, capfd):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    quiet_libraries()
    thread = threading.Thread(target=lambda: open("/no/such/file"))  # noqa: PTH123, SIM115
    thread.start()
    thread.join()
    assert "No such file" in capfd.readouterr().err
