#!/usr/bin/env python3
"""Export a trained generator to a program that runs without its code: `python export.py --help`."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from p2p.cli import command, pick_device
from p2p.deploy.export import export, load_weights
from p2p.deploy.rewrite import resolve_norm_stats
from p2p.interop.config import reference_record
from p2p.run import read_record


@command("export")
def main(cfg: DictConfig) -> None:
    """Export the generator of cfg.run_dir to cfg.output, and say how close to fp32 it is."""
    run_dir = Path(cfg.run_dir)
    checkpoint = Path(cfg.ckpt_path)
    if cfg.ckpt_path in ("last", "best"):
        checkpoint = run_dir / "checkpoints" / f"{cfg.ckpt_path}.ckpt"
    if checkpoint.suffix == ".pth":
        record = reference_record(checkpoint, image_size=cfg.image_size, direction=cfg.direction)
    else:
        record = read_record(run_dir, instead=", or export a .pth of the reference with ckpt_path=")
    generator = instantiate(record.generator, _convert_="all")
    validated = "ema" if record.get("callbacks", {}).get("ema", {}).get("validate") else "trained"
    load_weights(generator, checkpoint, weights=cfg.weights or validated)
    data = instantiate(record.data, _convert_="all")
    validation = data.inputs(cfg.images_from) if cfg.images_from else data.dataset("val")
    images = [validation[i].input_NCHW for i in range(min(cfg.images, len(validation)))]
    images = torch.cat([image for image in images if image.shape == images[0].shape])  # a program has one size
    manifest = export(
        generator,
        images,
        Path(cfg.output),
        backend=instantiate(cfg.backend),
        norm_stats=resolve_norm_stats(cfg.norm_stats or record.norm_stats, batch_size=record.batch_size),
        direction=record.data.direction,
        preprocess=record.transform.preprocess,
        multiple=record.transform.multiple,
        checkpoint=checkpoint,
        device=pick_device(cfg.device),
        min_psnr=cfg.min_psnr,
    )
    psnr = manifest.psnr_db
    print(
        f"{cfg.output}: {manifest.program.backend}, {manifest.program.dtype}, norm_stats={manifest.norm_stats},"
        f" {psnr['mean']:.1f} dB from fp32 over {psnr['images']} validation images (worst {psnr['worst']:.1f} dB)"
    )
    what = " input=your/images" if checkpoint.suffix == ".pth" else ""
    print(f"next: python infer.py +pipeline=overlap batch_size=8 name={cfg.name}{what}")


if __name__ == "__main__":
    main()
