import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from p2p.batch import Batch
from p2p.commands.run import keep_apart
from p2p.config.cli import short
from p2p.data.pairs import find_inputs
from p2p.training.saving import Checkpoints
from p2p.training.writer import Writer
from tests.conftest import picture
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix


def test_a_sweeps_folder_fits_a_file_system_and_stays_different():
    assert short("model.lambda_l1-10") == "model.lambda_l1-10"
    long = [short("x" * 300 + end) for end in "ab"]
    assert max(map(len, long)) < 255
    assert long[0] != long[1]


@pytest.mark.parametrize("fails", [True, False])
def test_a_run_that_fails_before_its_first_checkpoint_leaves_the_record_of_the_one_before(fails, tmp_path):
    record = tmp_path / "train.yaml"
    record.write_text("of: the run before\n")
    cfg = OmegaConf.create({"epochs": 1, "twice": "${epochs}"})
    data = [Batch(["x"], *picture_tensors(2 if fails and index else 3)) for index in range(2)]
    saving = {"enable_checkpointing": True, "callbacks": [ModelCheckpoint(tmp_path / "checkpoints")]}
    saving["plugins"] = [Checkpoints(cfg, tmp_path, writer=Writer())]
    model = pix2pix(TinyGenerator(), TinyDiscriminator())
    if fails:
        with pytest.raises(RuntimeError, match="channels"):
            fit(model, data, tmp_path, **saving)
        assert record.read_text() == "of: the run before\n"
    else:
        fit(model, data, tmp_path, **saving)
        assert record.read_text().endswith("\nepochs: 1\ntwice: ${epochs}\n")
    assert not list(tmp_path.glob("*.partial"))


def picture_tensors(channels):
    return torch.zeros(1, channels, 16, 16), torch.zeros(1, 3, 16, 16)


def test_outputs_replace_no_input_and_are_not_found_the_next_time(tmp_path):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    picture(8, 8).save(photos / "deep/a.png")
    (tmp_path / "link").symlink_to(photos)

    def check(source, output, suffix=".png"):
        pairs = find_inputs(str(source))
        keep_apart(pairs, [output / f"{pair.name}{suffix}" for pair in pairs], source=str(source), output=output)

    for output in (photos, photos / "out", photos / "x" / ".." / "out"):
        with pytest.raises(ValueError, match="where it would be read the next time: choose another output"):
            check(photos, output)
    for source, output in ((photos / "deep/a.png", photos / "deep"), (photos / "deep/*.png", tmp_path / "link/deep")):
        with pytest.raises(ValueError, match=r"a\.png is an input, and output=.* would replace it"):
            check(source, output)
    check(photos, tmp_path / "photos2")
    check(photos / "deep/a.png", photos / "deep", suffix=".jpg")
