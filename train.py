#!/usr/bin/env python3
"""Train pix2pix on image pairs: `python train.py --help`."""

from pathlib import Path

import lightning
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from p2p.cli import command
from p2p.interop import reference
from p2p.memory import keep_freed_memory
from p2p.report.tables import scores_of, show_scores
from p2p.run import start_from_reference


@command("train")
def main(cfg: DictConfig) -> None:
    """Validate, train, validate again; everything lands in cfg.run_dir."""
    keep_freed_memory()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    run_dir = Path(cfg.run_dir)
    start = start_from_reference(cfg) if cfg.init_from else {}
    data = instantiate(cfg.data, _convert_="all")
    model = instantiate(cfg.model, _convert_="all")
    for part, weights in start.items():
        reference.load(getattr(model, part), weights, Path(cfg.init_from))
    trainer = instantiate(
        cfg.trainer,
        callbacks=list(instantiate(cfg.callbacks).values()),
        logger=list(instantiate(cfg.logger).values()),
        _convert_="all",
    )
    resume = run_dir / "checkpoints/last.ckpt" if cfg.ckpt_path == "last" else cfg.ckpt_path
    if resume and not Path(resume).is_file():
        raise ValueError(f"there is no checkpoint {resume} to resume from: leave ckpt_path out to start anew")

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
    rank_zero_only(show_scores)({name: scores for name, scores in rows.items() if scores})
    say(f"next: python export.py name={cfg.name}")


if __name__ == "__main__":
    main()
