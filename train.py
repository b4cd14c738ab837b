#!/usr/bin/env python3
"""Train pix2pix on image pairs: `python train.py --help`."""

import os
from pathlib import Path

import lightning
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from p2p.cli import command
from p2p.interop.config import load_start, start_from_reference
from p2p.memory import keep_freed_memory
from p2p.report.tables import scores_of, show_scores
from p2p.run import resume_from, settle_norm_stats


@command("train")
def main(cfg: DictConfig) -> None:
    """Validate, train, validate again; everything lands in cfg.run_dir."""
    keep_freed_memory()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    run_dir = Path(cfg.run_dir)
    start = start_from_reference(cfg)
    data = instantiate(cfg.data, _convert_="all")
    trainer = instantiate(
        cfg.trainer,
        callbacks=list(instantiate(cfg.callbacks).values()),
        logger=list(instantiate(cfg.logger).values()),
        _convert_="all",
    )
    settle_norm_stats(cfg, processes=trainer.num_devices * trainer.num_nodes)
    model = instantiate(cfg.model, _convert_="all")
    load_start(model, start, cfg.init_from)
    resume = resume_from(cfg)
    before = scores_of(trainer.validate(model, data, ckpt_path=resume, verbose=False))
    say = rank_zero_only(print)  # the first of several processes speaks and writes
    say(f"training on {trainer.strategy.root_device} in {cfg.trainer.precision}, {len(data.dataset('train'))} pairs")
    rank_zero_only(OmegaConf.save)(cfg, run_dir / "train.yaml", resolve=True)  # what export.py and infer.py go by
    try:
        trainer.fit(model, data, ckpt_path=resume)
    except SystemExit:  # what Lightning makes of Ctrl-C
        say(f"{run_dir / 'checkpoints/last.ckpt'} can be exported, or resumed with ckpt_path=last")
        raise KeyboardInterrupt from None
    after = scores_of(trainer.validate(model, data, verbose=False))

    rows = {
        "input unchanged": before.get("unchanged"),
        "before training": before["val"],
        "after training": after["val"],
    }
    rank_zero_only(show_scores)(rows)
    say(f"next: python export.py name={os.path.relpath(run_dir, 'runs')}")


if __name__ == "__main__":
    main()
