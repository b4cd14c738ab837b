from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import OmegaConf

import p2p


def test_the_best_and_the_best_k_by_one_score():
    """Lightning refuses two of its ModelCheckpoint by one score, since both would have one state in a checkpoint."""
    cfg = p2p.compose(["callbacks=best_k", "monitor=val/PSNR", "monitor_mode=max", "run_dir=x"])
    nodes = OmegaConf.to_container(cfg.callbacks, resolve=True)
    savers = {name: instantiate(nodes[name]) for name in ("last", "best", "best_k")}
    assert savers["best"].monitor == savers["best_k"].monitor == "val/PSNR"
    trainer = Trainer(callbacks=[*savers.values()], logger=False, accelerator="cpu")
    assert {*savers.values()} <= {*trainer.callbacks}
    assert len({saver.state_key for saver in savers.values()}) == 3
