"""`p2p.train`, `export`, `infer` and `compose`: what the commands do, in a program that goes on afterwards."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import p2p
from p2p.commands.start import run_command
from p2p.system import signals
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SMALL = ["image_size=32", "generator.width=4", "discriminator.width=4", "trainer=cpu", "epochs=1", "name=mine"]
SMALL += ["+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1"]
MISTAKES = {
    "epohcs=3": "epohcs is not in the config, did you mean epochs",
    "epochs=0": "epochs=0 is out of range: use 1 or more",
    "generator=unett": "generator=unett is not known, did you mean unet",
    "ckpt_path=last": "there is no checkpoint .*last.ckpt to resume from",
    "seed=1,2": "seed=1,2 has several values",
    "--lr": "--lr is not known: settings are written without dashes",
    "-m": "-m works only on the command line",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_three_commands_in_one_program_that_uses_hydra_too(tmp_path, capsys):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/theirs.yaml").write_text("a: 1\n")
    arguments, handler = [*sys.argv], signal.getsignal(signal.SIGINT)
    with hydra.initialize_config_dir(str(tmp_path / "conf"), version_base="1.2"):
        before = GlobalHydra.instance().hydra
        trained = p2p.train(SMALL)
        with pytest.raises(ValueError, match="min_psnr=500 is out of range"):
            p2p.export(["name=mine", "min_psnr=500"])
        exported = p2p.export(["name=mine"])
        translated = p2p.infer(["name=mine", "batch_size=8", "+pipeline=sequential"])
        assert p2p.infer(["name=mine", "skip_existing=true"]).skipped == translated.written == 16
        assert GlobalHydra.instance().hydra is before and hydra.compose("theirs") == {"a": 1}
        assert hydra.version.base_at_least("1.2") and not hydra.version.base_at_least("1.3")
    assert (sys.argv, signal.getsignal(signal.SIGINT)) == (arguments, handler)
    assert (trained.folder, exported.folder) == (tmp_path / "runs/mine", Path("runs/mine/export"))
    assert trained.scores["val/L1"] == trained.score > 0 and {"val/PSNR", "val/SSIM"} <= {*trained.scores}
    assert exported.backend == "exported_program" and exported.score >= 40
    assert len([*translated.folder.glob("*.png")]) == 16 and translated.score > 0
    assert p2p.load(trained.folder).image_size == p2p.load(exported.folder).image_size == 32
    assert p2p.train([*SMALL, "ckpt_path=last", "epochs=2"]).folder == trained.folder
    assert "continuing from runs/mine/checkpoints/last.ckpt" in capsys.readouterr().out


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_a_value_error_with_the_commands_sentence(word, tmp_path):
    for function in (p2p.train, p2p.compose):
        with pytest.raises(ValueError, match=f"^{MISTAKES[word]}") as raised:
            function([word])
        assert "\n" not in str(raised.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", ["train", "export", "infer"])
def test_compose_gives_what_the_command_would_work_by(command, tmp_path, monkeypatch, capsys):
    cfg = p2p.compose(["name=a b", "batch_size=3"], command=command)
    assert not [*tmp_path.iterdir()]
    monkeypatch.setattr(sys, "argv", [f"{command}.py"])
    run_command(command, ["name=a b", "batch_size=3", "--cfg", "job"])
    printed = yaml.safe_load(capsys.readouterr().out)
    if command == "train":
        assert cfg.run_dir == str(tmp_path / "runs/a b")
        printed["run_dir"] = cfg.run_dir
    assert OmegaConf.to_container(cfg, resolve=False) == printed
    OmegaConf.to_container(cfg, resolve=True)  # without Hydra


def test_what_is_no_list_of_settings_is_refused():
    generator = (word for word in ["epochs=3"])  # looking at it once would use it up
    for overrides in ("epochs=3", [3], {"epochs": 3}.items(), 3, {"epochs=3": 3}, generator):
        with pytest.raises(ValueError, match=r"is not valid: use a list of words, as in \['name=mine', 'epochs=3'\]"):
            p2p.train(overrides)
    with pytest.raises(ValueError, match="command=trian is not known: use train, export, infer"):
        p2p.compose(command="trian")
    for word in ("trainer.devices=2", "trainer=ddp"):
        with pytest.raises(ValueError, match="would start this program again for each process"):
            p2p.train([word])


def test_an_interrupt_is_one_whatever_a_library_makes_of_it(monkeypatch):
    """And the next command does not end because of it."""

    def interrupted(cfg):
        signals.answer(signals.stop)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning

    monkeypatch.setattr("p2p.commands.export.main", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        p2p.export()
    assert (signals.received, signal.getsignal(signal.SIGINT)) == (None, handler)


def test_threads_take_turns_with_hydras_state():
    found = {}

    def composed(name):
        found[name] = Path(p2p.compose([f"name={name}"]).run_dir).name

    threads = [threading.Thread(target=composed, args=(f"turn{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: name for name in ("turn0", "turn1", "turn2", "turn3")}


def test_a_class_that_is_not_there_is_one_sentence():
    with pytest.raises(ValueError, match=r"generator: mine\.networks\.Plain cannot be imported: is the name right"):
        p2p.train(["generator._target_=mine.networks.Plain"])


def test_importing_p2p_takes_no_time():
    code = "import sys, p2p; print(*({'torch', 'hydra', 'omegaconf', 'numpy', 'PIL', 'lightning'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
