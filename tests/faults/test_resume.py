"""What a run that is resumed takes from its checkpoint, what from today's settings, and what it refuses."""

import copy
import shutil

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import ConstantLR, ReduceLROnPlateau, StepLR

from p2p.batch import Batch
from p2p.training.callbacks.resume import Resume, best_here, go_on_within_epoch
from p2p.training.resume import read_checkpoint
from p2p.training.schedules import cosine, linear
from tests.faults.test_resume_exact import TINY, best_score, pairs, run  # noqa: F401
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):  # noqa: F811
    """The folder of a run of two epochs, to be copied."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    early = "callbacks=[early_stopping,best_k]"
    run(folder, *TINY, f"data.root={pairs}", "epochs=2", "logger=default", "+trainer.limit_train_batches=2", early)
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "moved/run")


def test_the_record_keeps_its_references_through_a_training(trained):
    record = OmegaConf.to_container(OmegaConf.load(trained / "train.yaml"), resolve=False)
    assert record["scheduler"]["epochs"] == record["trainer"]["max_epochs"] == "${epochs}"
    assert record["data"]["transform"] == "${transform}" and record["generator"]["image_size"] == "${image_size}"


def test_the_last_checkpoint_knows_the_best_score_of_its_own_epoch(trained):
    last, best = (read_checkpoint(trained / f"checkpoints/{name}.ckpt") for name in ("last", "best"))
    assert best_score(last) == best_score(best)


def test_a_moved_run_keeps_its_best_checkpoint_and_its_curve(copied, capfd):
    best, kept = copied / "checkpoints/best.ckpt", {path.name for path in copied.glob("checkpoints/epoch*")}
    before = best.read_bytes()
    run(copied, "ckpt_path=last", "epochs=3", "optimizer.lr=0")  # no better
    assert best.read_bytes() == before
    assert {path.name for path in copied.glob("checkpoints/epoch*")} == kept | {"epoch_0002.ckpt"}
    assert [path.name for path in (copied / "tensorboard").iterdir()] == ["version_0"]
    assert sorted(path.name for path in (copied / "csv").iterdir()) == ["version_0", "version_1"]
    out, err = capfd.readouterr()
    assert err == "" and "epochs: 2 -> 3\n" in out and "learning rate of epoch 3: 0\n" in out
    assert "dirpath" not in out


def test_a_checkpoint_of_another_run_brings_no_best_score(trained, tmp_path, capfd):
    run(tmp_path / "fork", f"ckpt_path={trained}/checkpoints/last.ckpt", "epochs=3", "optimizer.lr=0")
    assert (tmp_path / "fork/checkpoints/best.ckpt").is_file()
    assert capfd.readouterr().err == ""


def test_what_cannot_be_gone_on_with_gets_a_sentence_and_changes_nothing(copied, tmp_path):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    last = copied / "checkpoints/last.ckpt"
    (tmp_path / "half.ckpt").write_bytes(last.read_bytes()[:100_000])
    (tmp_path / "empty.ckpt").touch()
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save(read_checkpoint(last) | {"optimizer_states": []}, tmp_path / "weights.ckpt")
    refused = {
        "ckpt_path=last": "epochs=2 leaves nothing to train, because 2 are done: use more, such as epochs=4",
        "epochs=1": "epochs=1 leaves nothing to train, because 2 are done",
        "generator.width=4": "was trained with another generator: leave out what changes it",
        "adversarial=none": "was trained with another discriminator",
        f"ckpt_path={tmp_path}/half.ckpt": "half.ckpt is not a checkpoint of p2p, or is damaged",
        f"ckpt_path={tmp_path}/empty.ckpt": "empty.ckpt is not a checkpoint of p2p, or is damaged",
        f"ckpt_path={tmp_path}/foreign.ckpt": "foreign.ckpt is not a checkpoint of p2p, or is damaged",
        f"ckpt_path={tmp_path}/weights.ckpt": "weights.ckpt holds only weights",
    }
    for typed, sentence in refused.items():
        more = [] if typed.startswith("ckpt_path") else ["ckpt_path=last"]
        with pytest.raises(ValueError, match=sentence):
            run(copied, typed, *more, *([] if "epochs" in sentence else ["epochs=9"]))
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_early_stopping_says_so_and_how_to_go_on(copied):
    path = copied / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    (state,) = (state for key, state in checkpoint["callbacks"].items() if "EarlyStopping" in key)
    state |= {"wait_count": 20, "stopped_epoch": 1}
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"after epoch 2, because val/L1 .* such as 40, or ~callbacks.early_stopping"):
        run(copied, "ckpt_path=last", "epochs=4")
    run(copied, "ckpt_path=last", "epochs=4", "callbacks.early_stopping.patience=21", "optimizer.lr=0")
    assert read_checkpoint(path)["epoch"] == 2  # one more, which is no better
    run(copied, "ckpt_path=last", "epochs=4", "~callbacks.early_stopping")
    assert read_checkpoint(path)["epoch"] == 3


def adam(lr=0.01, kind=torch.optim.Adam, **settings):
    return lambda parameters: kind(parameters, lr=lr, **settings)


def checkpoint_of(tmp_path, scheduler, optimizer, *, epochs):
    """Of a run of so many epochs, two batches each."""
    model = pix2pix(TinyGenerator(), TinyDiscriminator(), scheduler=scheduler, optimizer=optimizer)
    save = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    batches = [_batch(), _batch()]
    fit(model, batches, tmp_path, callbacks=[save], enable_checkpointing=True, max_epochs=epochs)
    return torch.load(tmp_path / "last.ckpt", weights_only=True)


def _batch():
    return Batch(["x"], *torch.rand(2, 1, 3, 16, 16))


def follow(checkpoint, scheduler, optimizer, **changed):
    """The optimizer and scheduler of the generator as they go on, and the checkpoint."""
    checkpoint = copy.deepcopy(checkpoint)
    model = pix2pix(TinyGenerator(), TinyDiscriminator(), scheduler=scheduler, optimizer=optimizer)
    options = {"in_place": True, "new_rates": True, "new_optimizer": False, "images": 2, "batch_size": 1}
    Resume(**options | changed).follow_settings(model, checkpoint)
    (made, _), (named, _) = model.configure_optimizers()
    schedule = named["scheduler"]
    made.load_state_dict(checkpoint["optimizer_states"][0])
    schedule.load_state_dict(checkpoint["lr_schedulers"][0])
    return made, schedule


SCHEDULES = {
    "longer": (lambda o: linear(o, epochs=8), lambda n: 1 - max(0, n - 3) / 5),
    "cosine": (lambda o: cosine(o, epochs=6), None),
    "step": (lambda o: StepLR(o, 2, gamma=0.5), lambda n: 0.5 ** (n // 2)),
    "constant": (lambda o: ConstantLR(o, factor=1.0), lambda n: 1.0),
    "plateau": (lambda o: ReduceLROnPlateau(o, patience=9), lambda n: 1.0),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_follow_from_todays_schedule_at_the_epoch_that_is_reached(name, tmp_path):
    schedule, factor = SCHEDULES[name]
    checkpoint = checkpoint_of(tmp_path, lambda o: linear(o, epochs=3), adam(lr=0.3), epochs=3)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0
    optimizer, scheduler = follow(checkpoint, schedule, adam(lr=0.01))
    assert optimizer.state_dict()["state"][0]["step"] == 6  # its averages go on
    fresh = adam(lr=0.01)([torch.nn.Parameter(torch.zeros(1))])
    straight = schedule(fresh)
    for epoch in range(6):
        if epoch >= 3:
            assert optimizer.param_groups[0]["lr"] == fresh.param_groups[0]["lr"]
            if factor:
                assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factor(epoch))
        for each in (straight, *([scheduler] if epoch >= 3 else [])):
            each.step(*([0.0] if name == "plateau" else []))


def test_unchanged_rates_go_on_bit_by_bit_and_other_settings_are_todays(tmp_path):
    checkpoint = checkpoint_of(tmp_path, lambda o: StepLR(o, 1, gamma=0.3), adam(), epochs=3)
    saved = checkpoint["optimizer_states"][0]["param_groups"][0]
    new = adam(betas=(0.1, 0.2), weight_decay=0.5)
    optimizer, _ = follow(checkpoint, lambda o: StepLR(o, 1, gamma=0.3), new, new_rates=False)
    (group,) = optimizer.param_groups
    assert group["lr"] == saved["lr"] and group["initial_lr"] == saved["initial_lr"]
    assert (group["betas"], group["weight_decay"]) == ((0.1, 0.2), 0.5)
    assert torch.equal(
        optimizer.state_dict()["state"][0]["exp_avg"], checkpoint["optimizer_states"][0]["state"][0]["exp_avg"]
    )


@pytest.mark.parametrize(
    ("optimizer", "changed"),
    [(adam(amsgrad=True), False), (adam(kind=torch.optim.SGD), True), (adam(kind=torch.optim.AdamW), True)],
)
def test_averages_of_another_optimizer_start_anew_and_that_is_said(optimizer, changed, tmp_path, capsys):
    checkpoint = checkpoint_of(tmp_path, lambda o: linear(o, epochs=9), adam(), epochs=1)
    made, _ = follow(checkpoint, lambda o: linear(o, epochs=9), optimizer, new_optimizer=changed, new_rates=False)
    assert not made.state and "start again" in capsys.readouterr().out
    for group in made.param_groups:
        for weight in group["params"]:
            weight.grad = torch.ones_like(weight)
    made.step()


def test_the_best_k_are_those_that_are_here_and_as_many_as_are_kept_today(tmp_path):
    scores = {f"/elsewhere/epoch_{n:04d}.ckpt": torch.tensor(float(n)) for n in range(4)}
    for n in (0, 1, 2):
        (tmp_path / f"epoch_{n:04d}.ckpt").touch()
    state = {"best_k_models": scores, "dirpath": "/elsewhere"}
    callback = ModelCheckpoint(tmp_path, monitor="x", mode="max", save_top_k=2)
    best = best_here(state, callback)
    assert list(best["best_k_models"]) == [f"{tmp_path}/epoch_0002.ckpt", f"{tmp_path}/epoch_0001.ckpt"]
    assert best["best_model_score"] == 2 and best["kth_value"] == 1 and best["dirpath"] == callback.dirpath
    assert best_here({"best_k_models": {"/elsewhere/epoch_0003.ckpt": torch.tensor(3.0)}}, callback) is None


def stopped_loop(**loader):
    """Of an epoch that was stopped before its fifth batch, the third after two of ten batches."""

    def counts(done):
        return {"ready": done + 1, "started": done, "processed": done, "completed": done}

    return {
        "epoch_progress": {"current": {"ready": 3, "started": 3, "processed": 2, "completed": 2}},
        "epoch_loop.batch_progress": {"current": counts(4), "total": counts(24), "is_last_batch": False},
        "epoch_loop.state_dict": {"_batches_that_stepped": 24},
        "state_dict": {"combined_loader": [loader]} if loader else {},
    }


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        ({"seed": 1, "images": 20, "batch_size": 2, "processes": 1}, ""),
        (
            {"seed": 1, "images": 20, "batch_size": 1, "processes": 1},
            "trained from its start again: batch_size changed",
        ),
        ({"seed": 1, "images": 21, "batch_size": 2, "processes": 1}, "trained from its start again: images changed"),
        ({}, "epoch 3 was stopped after 4 batches and is trained from its start again: the order of"),
    ],
)
def test_an_epoch_that_cannot_be_gone_on_with_starts_again(loader, said, capsys):
    loop = stopped_loop(**loader)
    go_on_within_epoch(loop, {"images": 20, "batch_size": 2, "processes": 1})
    assert said in capsys.readouterr().out
    done = 0 if said else 4
    progress = loop["epoch_loop.batch_progress"]
    assert (progress["current"]["completed"], progress["total"]["completed"]) == (done, 20 + done)
    assert ("combined_loader" in loop["state_dict"]) == (not said)
