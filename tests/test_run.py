import pytest
from omegaconf import OmegaConf

from p2p.cli import short
from p2p.run import resume_from
from tests.test_configs import compose_command


def test_resuming_names_the_part_that_was_changed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("last", "best"):
        (tmp_path / f"checkpoints/{name}.ckpt").touch()
    OmegaConf.save(compose_command("train", folder=tmp_path), tmp_path / "train.yaml", resolve=True)
    for name in ("last", "best"):
        cfg = compose_command("train", [f"ckpt_path={name}", "epochs=99"], tmp_path)
        assert resume_from(cfg) == tmp_path / f"checkpoints/{name}.ckpt"
    for part, override in (("generator", "generator.width=8"), ("adversarial", "adversarial=none")):
        with pytest.raises(ValueError, match=rf"last\.ckpt was trained with another {part}: resume with"):
            resume_from(compose_command("train", ["ckpt_path=last", override], tmp_path))


def test_a_sweeps_folder_fits_a_file_system_and_stays_different():
    assert short("model.lambda_l1-10") == "model.lambda_l1-10"
    long = [short("x" * 300 + end) for end in "ab"]
    assert max(map(len, long)) < 255
    assert long[0] != long[1]
