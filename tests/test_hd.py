"""pix2pixHD's two stages, by the commands: experiment=hd_global, then experiment=hd from its run."""

import pytest
import torch
from hydra.utils import instantiate

from p2p.commands import train
from p2p.losses.adversarial import LeastSquares
from p2p.models.local_enhancer import LocalEnhancer
from p2p.models.multi_scale import MultiScale
from p2p.training.start import find_start, start_from_run
from tests.test_configs import compose_command

pytestmark = pytest.mark.slow

QUIET = ["~logger", "+trainer.enable_progress_bar=false", "~callbacks.progress", "~callbacks.samples", "trainer=cpu"]
FEW = ["+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1", "epochs=1", "losses=[feature_matching]"]
SMALL = ["generator.blocks=1", "generator.downsamplings=1", "discriminator.width=2", "discriminator.layers=1"]


def compose(folder, *overrides):
    return compose_command("train", [*QUIET, *FEW, *SMALL, *overrides], folder)


def weights(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def part(name, state):
    return {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}


def test_presets_are_those_of_the_paper():
    stages = [compose_command("train", [f"experiment={name}"]) for name in ("hd_global", "hd")]
    assert [(cfg.image_size, cfg.discriminator.scales, cfg.epochs) for cfg in stages] == [(512, 2, 200), (1024, 3, 100)]
    for cfg in stages:
        assert (cfg.generator.downsamplings, cfg.generator.blocks, cfg.generator.norm) == (4, 9, "instance")
        assert {name: loss.weight for name, loss in cfg.losses.items()} == {"feature_matching": 10, "perceptual": 10}
        assert isinstance(instantiate(cfg.adversarial), LeastSquares)
    assert (stages[0].generator.width, stages[1].generator.width) == (64, 32)  # the same ResNet
    assert stages[1].callbacks.freeze.epochs == 10


def test_the_second_stage_waits_for_the_enhancer_and_then_trains_all(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    train.main(compose(first, "experiment=hd_global", "image_size=32", "generator.width=4"))
    options = ["experiment=hd", "image_size=64", "generator.width=2", "callbacks.freeze.epochs=2"]
    train.main(compose(second, *options, f"init_from={first}"))
    assert "last.ckpt: the generator at half the side and the discriminator" in capsys.readouterr().out
    start, frozen = weights(first), weights(second)
    coarse = part("generator.coarse.", frozen)
    assert coarse and all(value.equal(start[f"generator.{name}"]) for name, value in coarse.items())
    record = torch.load(second / "checkpoints/last.ckpt", weights_only=True)
    assert len(record["optimizer_states"][0]["state"]) == len(part("generator.", frozen)) - len(coarse)

    train.main(compose(second, *options, f"init_from={first}", "epochs=3", "ckpt_path=last"))  # frozen, then not
    after = weights(second)
    moved = {name for name, value in after.items() if not value.equal(frozen[name])}
    assert moved == set(after)  # nothing is left behind


def test_what_is_started_from(tmp_path, capsys):
    """The coarse scales of a discriminator go on; another one starts anew, and another generator is refused."""

    def model(**options):
        made = torch.nn.Module()
        made.generator = LocalEnhancer(image_size=32, downsamplings=1, blocks=1, width=2)
        made.discriminator = MultiScale(**{"scales": 2, "layers": 1, "width": 2} | options)
        return made

    old, path = model(), tmp_path / "x.ckpt"
    torch.save({"state_dict": old.state_dict()}, path)
    new = model(scales=3)
    start_from_run(new, path)
    assert all(
        value.equal(old.discriminator.state_dict()[k])
        for k, value in new.discriminator.scales[:2].state_dict(prefix="scales.").items()
    )
    assert all(map(torch.equal, new.generator.parameters(), old.generator.parameters()))
    start_from_run(model(width=3), path)
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: the generator and the discriminator",
        f"{path}: the generator; the discriminator starts from random weights, because the file has one of"
        " other settings",
    ]
    new.generator = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(
        ValueError, match=r"x\.ckpt holds another generator than this one: use its generator= and.*twice its"
    ):
        start_from_run(new, path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"x\.ckpt is not a checkpoint of p2p, or is damaged$"):
        start_from_run(new, path)


def test_what_init_from_names(tmp_path):
    assert find_start(None, init_discriminator_from="x.pth") is None
    assert find_start("latest_net_G.pth", init_discriminator_from=None) is None
    for name, said in (
        (tmp_path, "is no run: its checkpoints/last.ckpt is missing"),
        ("nowhere", "does not exist: use a"),
    ):
        with pytest.raises(ValueError, match=f"^init_from={name} {said}"):
            find_start(str(name), init_discriminator_from=None)
    (tmp_path / "x.ckpt").touch()
    with pytest.raises(ValueError, match=r"^init_discriminator_from=d\.pth goes with a \.pth of pytorch-Cycle"):
        find_start(str(tmp_path / "x.ckpt"), init_discriminator_from="d.pth")


def test_a_part_that_was_not_trained_before_is_not_frozen(tmp_path):
    with pytest.raises(Exception, match=r"that is random without init_from: name the run of experiment=hd_global"):
        instantiate(compose(tmp_path, "experiment=hd", "image_size=64").callbacks)
    with pytest.raises(ValueError, match=r"callbacks\.freeze\.part=coarse is no part of a UNet: use one of down, up"):
        cfg = compose_command("train", ["callbacks=freeze", f"init_from={tmp_path}", "image_size=32"])
        freeze = instantiate(cfg.callbacks.freeze)
        made = torch.nn.Module()
        made.generator = instantiate(cfg.generator)
        freeze.setup(None, made, "fit")
