"""Convert the records of earlier versions to the settings of this version."""

from __future__ import annotations

import re

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p.run.leaves import is_reference, leaves
from p2p.shipped import CONF

# What lay elsewhere before 0.2: modules of training, one level higher; a transform for infer.py on a GPU, which in
# training was this one.
MOVED = [
    (re.compile(r"(?m)(_target_: )p2p\.(?=(pix2pix|schedules|callbacks)\.)"), r"\1p2p.training."),
    (re.compile(r"(?m)(_target_: p2p\.data\.transforms)\.cvcuda\.CvCuda$"), r"\1.torchvision.Torchvision"),
]
DISTANCES = {"torch.nn.L1Loss": "l1", "torch.nn.MSELoss": "l2"}
MONITOR = {"monitor": "val/L1", "monitor_mode": "min"}


def with_todays_names(text: str) -> str:
    """A record, as YAML, in which everything is called as it is today."""
    for earlier, today in MOVED:
        text = earlier.sub(today, text)
    return text


def modernize(record: DictConfig) -> None:
    """Change a record that holds today's settings and earlier ones so that it holds today's alone."""
    if not any(is_reference(value) for _, value in leaves(OmegaConf.to_container(record, resolve=False))):
        _restore_references(record)  # before 0.2 values alone were saved
    if record.get("norm_stats") == "auto":  # what it meant for that run
        record.norm_stats = "instance" if record.batch_size == 1 else "running"
    if "data" in record and "cache" in record.data:
        record.data.setdefault("decode", "cpu")  # before 0.2 nothing else did
    if "losses" not in record and "model" in record:
        _name_losses_and_metrics(record)
    progress = (record.get("callbacks") or {}).get("progress")
    if progress and progress.pop("refresh_rate", None):  # in batches
        progress.refresh_s = 0.25


def _name_losses_and_metrics(record: DictConfig) -> None:
    """There was one distance from the target, weighted by lambda_l1, and L1, PSNR and SSIM, of which L1 counted."""
    record.model.pop("reconstruction", None)  # refers to the other, so it goes first
    distance = record.pop("reconstruction", None)
    losses = {}
    if distance is not None:
        name = DISTANCES.get(distance._target_, "distance")
        losses[name] = {"_target_": "p2p.losses.loss.Distance", "distance": distance, "weight": None}
    metrics = {name: {"_target_": f"p2p.metrics.image.{name.lower()}"} for name in ("L1", "PSNR", "SSIM")}
    record.update({"losses": losses, "metrics": metrics, **MONITOR})
    record.model.update({key: f"${{{key}}}" for key in ("losses", "metrics", "monitor")})
    _restore_references(record, only=[f"${{{key}}}" for key in MONITOR])


def _restore_references(record: DictConfig, only: list[str] | None = None) -> None:
    """Put a reference wherever conf/ has one, or one of these, to an equal value."""
    for path in sorted(CONF.glob("*/*.yaml"), key=lambda path: path.parent.name == "model"):  # that refers to nodes
        for key, value in leaves(OmegaConf.to_container(OmegaConf.load(path), resolve=False)):
            key = f"{path.parent.name}.{key}"
            recorded = OmegaConf.select(record, key)
            if recorded is None or not is_reference(value) or (only is not None and value not in only):
                continue
            parent, _, name = key.rpartition(".")
            node = OmegaConf.select(record, parent)
            node[name] = value
            try:
                same = node[name] == recorded
            except OmegaConfBaseException:
                same = False
            if not same:
                node[name] = recorded
