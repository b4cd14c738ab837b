"""The record of a training run, which export and inference go by so that they never disagree with it."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf


def read_record(run_dir: Path) -> DictConfig:
    """The config that `train.py` saved in the run's folder, resolved.

    Raises:
        ValueError: there is no such run.
    """
    path = run_dir / "train.yaml"
    if not path.is_file():
        raise ValueError(f"there is no trained run in {run_dir}: run train.py first, with the same name=")
    return OmegaConf.load(path)
