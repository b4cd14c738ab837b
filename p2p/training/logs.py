"""One curve for a run, also if it is stopped and resumed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf


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
