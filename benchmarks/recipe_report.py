#!/usr/bin/env python3
"""The table of `benchmarks.recipes`, and a picture of what its two last generators make of validation images.

    python -m benchmarks.recipe_report runs/recipes
    python -m benchmarks.recipe_report runs/recipes --picture results.jpg --val data/emoji/val best=best.safetensors

Pictures are not selected.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
from PIL import Image

import p2p
from benchmarks.recipe_plan import CHANGES, read_rows
from p2p.report.picture import contact_sheet, spread

SCORES = {"PSNR": 2, "SSIM": 3, "L1": 3, "grid": 2}
COUNT = 16  # rows of the picture


def cells(rows: list[dict]) -> list[str]:
    """Steps and scores of a recipe; of several seeds the mean, and the lowest and highest PSNR and SSIM."""
    found = [
        f"{statistics.mean(row[key] for row in rows):,.{digits}f}"
        for key, digits in {"images_per_s": 0, "epochs": 1}.items()
    ]
    for key, digits in SCORES.items():
        values = [row[key] for row in rows]
        span = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
        found.append(f"{statistics.mean(values):.{digits}f}{span}")
    return found


def table(rows: list[dict], best: list[str]) -> str:
    """As Markdown: the paper's recipe, one change at a time, winners together, the best with all its seeds, longer."""
    done = [row for row in rows if "PSNR" in row]
    groups: dict[str, list[dict]] = {"the paper's recipe": [row for row in done if row["name"] == "paper"]}
    first = {row["name"]: row for row in done if row["seed"] == 0}
    groups |= {name: [first[name]] for name in CHANGES if name in first}
    groups |= {name: [row] for name, row in first.items() if " + " in name}
    together = " + ".join(best) or "paper"
    seeds = [row for row in done if row["name"] in ("best", together)]
    groups |= {
        f"**{together}**": seeds if best else [],
        "the paper's recipe, longer": [first[n] for n in ("paper, longer",) if n in first],
    }
    groups |= {"the best, longer": [first[n] for n in ("best, longer",) if n in first]}
    groups.pop(together, None)
    told = {"paper", "best", "paper, longer", "best, longer", *CHANGES}
    for name in dict.fromkeys(row["name"] for row in done):  # of recipes that the plan does not have
        if name not in told and " + " not in name:
            groups[name] = [row for row in done if row["name"] == name]
    lines = ["| recipe | images/s | epochs | PSNR, dB | SSIM | L1 | grid |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(cells(rows))} |" for name, rows in groups.items() if rows]
    lines += [
        f"| {row['name']} | failed: {row['error'].splitlines()[0][:80]} | | | | | |" for row in rows if "error" in row
    ]
    return "\n".join(lines)


def picture(val: Path, models: dict[str, Path], path: Path) -> None:
    """Validation images, evenly spread by name, and what each model makes of them."""
    translates = [p2p.load(model, device="cpu") for model in models.values()]
    rows = []
    for pair in spread(sorted(val.glob("*.jpg")), COUNT):
        drawing, render = np.split(np.asarray(Image.open(pair).convert("RGB")), 2, axis=1)
        rows.append([drawing, *(translate(drawing) for translate in translates), render])
    sheet = contact_sheet(rows, header=["input", *models, "target"], across=2)
    sheet.save(path, "JPEG", quality=88, subsampling=0, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the results")
    parser.add_argument("models", nargs="*", help="name=file.safetensors, a column of the picture each")
    parser.add_argument("--picture", type=Path, help="a JPEG to write")
    parser.add_argument("--val", type=Path, help="the folder of A|B validation images")
    args = parser.parse_args(arguments)
    rows, chosen = read_rows(args.folder), args.folder / "best.json"
    print(table(rows, json.loads(chosen.read_text()) if chosen.is_file() else []))
    if args.picture:
        models = dict(model.split("=", 1) for model in args.models)
        picture(args.val, {name: Path(path) for name, path in models.items()}, args.picture)


if __name__ == "__main__":
    main()
