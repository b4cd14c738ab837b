"""What loggers get beside the curves, and how a resumed run continues its TensorBoard curve."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from p2p.config.shown import as_typed
from p2p.run.leaves import leaves
from p2p.run.record import as_record

NOT_OF_TRAINING = ("name", "run_dir", "ckpt_path", "callbacks", "logger", "trainer")  # where and how it runs


def settings_of(cfg: DictConfig) -> dict[str, bool | int | float | str]:
    """What makes one training another, by the names that it is set by: {"optimizer.lr": 0.0002, "generator": "UNet"}.

    What follows from another setting is left out.
    """
    found = {}
    for key, value in leaves(OmegaConf.to_container(as_record(cfg), resolve=False)):
        if key.partition(".")[0] in NOT_OF_TRAINING or key.endswith("._partial_"):
            continue
        if key.endswith("._target_"):
            key, value = key.removesuffix("._target_"), value.rpartition(".")[2]
        if not (isinstance(value, str) and "${" in value):
            found[key] = value if isinstance(value, (bool, int, float)) else as_typed(value)
    return found


def log_settings(loggers: list[Logger], cfg: DictConfig, scores: dict[str, float] | None) -> None:
    """Tell every logger the settings, as its hyperparameters.

    TensorBoard's page HPARAMS has a row for each run that named its scores when it began, and shows their last values.

    Args:
        scores: before training, by the names that they are logged by; None: the run goes on, and has its row.
    """
    settings = settings_of(cfg)
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings)
        elif scores is not None:
            logger.log_hyperparams(settings, scores, step=0)


def going_on(loggers: DictConfig, checkpoint: dict) -> DictConfig:
    """Nodes of loggers, of which TensorBoard's goes on with the last version_<n> in the run's folder.

    What was logged there after the checkpoint is hidden. CSV files begin a new version, which keeps the one before.
    """
    loggers = OmegaConf.create({name: OmegaConf.to_container(node, resolve=True) for name, node in loggers.items()})
    for node in loggers.values():
        if node._target_.endswith(".TensorBoardLogger") and node.get("version") is None:
            names = [path.name.removeprefix("version_") for path in Path(node.save_dir, node.name).glob("version_*")]
            if versions := [int(name) for name in names if name.isdigit()]:
                node.version, node.purge_step = max(versions), first_step(checkpoint)
    return loggers


def first_step(checkpoint: dict) -> int:
    """The step that is logged next: batches are counted, from 0."""
    loop = checkpoint["loops"]["fit_loop"]
    steps = loop["epoch_loop.state_dict"]["_batches_that_stepped"]
    epoch, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]["current"]
    # An epoch that has ended but for its validation has logged this step.
    return steps + (epoch["ready"] > epoch["processed"] and batches["processed"] == batches["ready"])
