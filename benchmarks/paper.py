#!/usr/bin/env python3
"""Do the tables of Isola et al. 2017 come out on facades? Labels -> photo.

    python -m benchmarks.paper data/facades runs/paper --epochs 50 [--tables 1,2,3] [override ...]

Table 1 and Figure 4 are the losses, Table 2 the U-Net against the encoder-decoder, at batch 10, Table 3 the patches of
the discriminator; all runs of a folder have the same epochs. A multirun of `train.py` trains the presets of
conf/experiment, `export.py` and `infer.py` translate the validation labels, and the outputs get the scores of
`benchmarks.readback` beside PSNR, SSIM and L1, which are those of validation. The folder gets the runs, paper.json,
paper.md and a picture for each table: rows are validation images, evenly spread by name, columns the input, what each
run makes of it, and the target.

Stop it at any time: the same command goes on. Overrides are settings of all trainings, also of the reader's.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import p2p
from benchmarks.readback import ends, readback, trained_reader, validation, written
from benchmarks.record import commit, head
from benchmarks.sweep import sweep
from p2p.config.cli import quiet_libraries
from p2p.metrics import image
from p2p.report.picture import contact_sheet, spread
from p2p.system import atomic

TABLES = {
    1: {
        "L1": "paper_l1",
        "GAN": "paper_gan",
        "cGAN": "paper_cgan",
        "L1+GAN": "paper_l1_gan",
        "L1+cGAN": "paper_l1_cgan",
    },
    2: {
        "enc.-dec., L1": "paper_encoder_decoder_l1",
        "enc.-dec., L1+cGAN": "paper_encoder_decoder_l1_cgan",
        "U-Net, L1": "paper_unet_l1",
        "U-Net, L1+cGAN": "paper_unet_l1_cgan",
    },
    3: {
        "1x1": "paper_pixel",
        "16x16": "paper_patch_16",
        "70x70": "paper_l1_cgan",  # the same recipe as paper_patch_70
        "286x286": "paper_patch_286",
    },
}
ROWS = 6  # of a picture
DIGITS = {"PSNR": 2, "SSIM": 3, "L1": 3}
ENDS = ("facade everywhere", "real photos")


def translated(run_dir: Path) -> Path:
    """The folder with what a run's network makes of its validation inputs, exported and translated anew."""
    # In fp32, and by what runs on every device: the scores are the network's, and not those of its rounding.
    p2p.export([f"run_dir={run_dir}", "backend=exported_program", "backend.precision=fp32"])
    return p2p.infer([f"run_dir={run_dir}", "batch_size=8", "codec=fast", "codec.format=png"]).folder


def distances(photos: list[np.ndarray], targets: list[np.ndarray]) -> dict[str, float]:
    """PSNR, SSIM and L1 as in validation; uint8 frames (H, W, 3)."""
    metrics = {"PSNR": image.psnr(), "SSIM": image.ssim(), "L1": image.l1()}
    for frames in zip(photos, targets, strict=True):
        images = [torch.from_numpy(frame.transpose(2, 0, 1).copy())[None] / 127.5 - 1 for frame in frames]
        for metric in metrics.values():
            metric.update(*images)
    return {name: metric.compute().item() for name, metric in metrics.items()}


def table(number: int, rows: dict[str, dict[str, float]]) -> str:
    """A table of the paper as Markdown, from the scores of each preset."""
    lines = [f"| Table {number} | pixel | class | IoU | PSNR, dB | SSIM | L1 |", "|---|---|---|---|---|---|---|"]
    for name, key in {**TABLES[number], **{end: end for end in ENDS}}.items():
        if row := rows.get(key):
            cells = [f"{row[each]:.3f}" for each in ("pixel", "class", "IoU")]
            cells += [f"{row[each]:.{digits}f}" if each in row else "" for each, digits in DIGITS.items()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(number: int, folder: Path, names: list[str], labels: list[np.ndarray], photos: list[np.ndarray]) -> None:
    """Write what the runs of a table made of a few validation images."""
    some = spread(range(len(names)), ROWS)
    outputs = [written(folder / run / "images", [names[index] for index in some]) for run in TABLES[number].values()]
    rows = list(zip([labels[index] for index in some], *outputs, [photos[index] for index in some], strict=True))
    sheet = contact_sheet(list(map(list, rows)), header=["input", *TABLES[number], "target"])
    with atomic.replacing(folder / f"table_{number}.jpg") as partial:
        sheet.save(partial, "JPEG", quality=90, subsampling=0)


def recorded(path: Path, settings: dict) -> dict[str, dict[str, float]]:
    """The rows that are there already.

    Raises:
        ValueError: they are of other settings.
    """
    if not path.is_file():
        return {}
    record = json.loads(path.read_text())
    for key, value in settings.items():
        if record[key] != value:
            raise ValueError(f"the runs in {path.parent} have {key}={record[key]}, not {value}: use another folder")
    return record["rows"]


def main(arguments: list[str] | None = None) -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="facades, with train/ and val/")
    parser.add_argument("folder", type=Path, help="where runs and results go")
    parser.add_argument("overrides", nargs="*", help="settings of train.py")
    parser.add_argument("--tables", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=200, help="of each run")
    parser.add_argument("--reader-epochs", type=int, default=100, help="of the network that reads labels back")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    args = parser.parse_intermixed_args(arguments)
    root, folder = args.root.resolve(), args.folder.resolve()
    tables = [int(number) for number in args.tables.split(",")]
    settings = {"epochs": args.epochs, "reader_epochs": args.reader_epochs, "overrides": args.overrides}
    rows = recorded(folder / "paper.json", settings)
    record = head(args.commit, "lightning") | settings

    def add(name: str, row: dict[str, float]) -> None:
        rows[name] = row
        atomic.write(folder / "paper.json", json.dumps(record | {"rows": rows}, indent=1) + "\n")

    data = ["data=facades", f"data.root={root}"]
    wanted = list(dict.fromkeys(run for number in tables for run in TABLES[number].values()))
    folder.mkdir(parents=True, exist_ok=True)
    reader = trained_reader(root, folder / "reader", args.overrides, epochs=args.reader_epochs)
    names, labels, photos = validation(root, reader.image_size)
    for name, row in ends(reader, photos, labels).items():
        add(name, row)
    sweep([run for run in wanted if run not in rows], folder, [*data, *args.overrides], epochs=args.epochs)
    for run in wanted:
        if run not in rows:
            outputs = written(translated(folder / run), names)
            add(run, readback(reader, outputs, labels) | distances(outputs, photos))
    for number in tables:
        picture(number, folder, names, labels, photos)
    text = "\n".join(table(number, rows) for number in TABLES if set(TABLES[number].values()) <= rows.keys())
    atomic.write(folder / "paper.md", text)
    print(f"\n{text}\npaper.json, paper.md and a picture for each table are in {args.folder}")


if __name__ == "__main__":
    main()
