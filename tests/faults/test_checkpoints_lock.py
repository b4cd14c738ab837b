"""Two trainings of one name."""

import os
import signal
import time

import pytest
from lightning.fabric.utilities import rank_zero_only

from p2p.commands import train
from p2p.data.datamodule import PairedImages
from p2p.system.atomic import PREFIX, SUFFIX
from p2p.system.lock import FILE, held
from tests.faults.test_checkpoints import forked
from tests.test_configs import compose_command


def hold_with_a_loader_process(run_dir, pids):
    """As a training whose data loader has started a process."""
    with held(run_dir):
        loader = os.fork()
        if not loader:
            time.sleep(60)
            os._exit(0)
        pids.write_text(str(loader))
        time.sleep(60)


def test_the_second_training_is_refused_until_the_first_ends_or_is_killed(tmp_path, monkeypatch):
    run_dir, pids = tmp_path / "run", tmp_path / "loader"
    with forked(lambda: hold_with_a_loader_process(run_dir, pids)) as first:
        deadline = time.monotonic() + 20
        while not pids.exists() or not pids.read_text():
            assert time.monotonic() < deadline
        with pytest.raises(ValueError, match=rf"run is in use, process {first} on \S+ is training there: wait"):
            train.main(compose_command("train", folder=run_dir))
        assert sorted(path.name for path in run_dir.iterdir()) == [FILE]
        with monkeypatch.context() as patch:
            patch.setattr(rank_zero_only, "rank", 1)  # another process of the same training
            with held(run_dir):
                pass
    try:
        with held(run_dir):  # the loader process of the killed one still lives
            assert (run_dir / FILE).is_file()
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)
    assert list(run_dir.iterdir()) == []


def test_taking_the_folder_removes_the_temporary_files_of_killed_trainings(tmp_path):
    for folder in (tmp_path, tmp_path / "checkpoints", tmp_path / "samples"):
        folder.mkdir(exist_ok=True)
        (folder / f"{PREFIX}0{SUFFIX}").write_text("half a file")
        (folder / "users.partial").write_text("not ours")
    with held(tmp_path):
        assert [path.name for path in tmp_path.rglob("*.partial")] == ["users.partial"] * 3


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"run_dir=.*file is a file"), held(tmp_path / "file"):
        pass


def test_a_data_set_that_two_trainings_need_is_made_once(tmp_path):
    root, calls = tmp_path / "data/set", tmp_path / "calls"

    def make(folder):
        with calls.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        folder.mkdir()

    def prepare():
        PairedImages(root=str(root), transform=None, source=make).prepare_data()

    with forked(prepare) as first:
        deadline = time.monotonic() + 20
        while not calls.exists() or not calls.read_text():
            assert time.monotonic() < deadline
        prepare()
        assert calls.read_text() == f"{first}\n"
    assert [path.name for path in root.parent.iterdir()] == ["set"]
