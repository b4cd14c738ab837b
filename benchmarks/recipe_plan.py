"""The runs of `benchmarks.recipes`, and how several processes share them by files of one folder.

First come runs of the paper's recipe with one change each. Of each kind of change, the best one that improves the score
is a winner. Then the other winners are added to the best one, two at a time, and stay if they improve the score again.
The result and the paper's recipe are run with two more seeds, and once more for longer.
"""

import json
from pathlib import Path
from typing import NamedTuple

PAPER = ["experiment=paper", "generator.width=16", "discriminator.width=16"]
INSTANCE = ["generator.norm=instance", "discriminator.norm=instance"]
CHANGES = {  # name: kind, overrides; in the order in which they are written behind each other
    "batch 4, instance norm": ("batch", ["batch_size=4", *INSTANCE]),
    "batch 16, instance norm": ("batch", ["batch_size=16", *INSTANCE]),
    "batch 16": ("batch", ["batch_size=16"]),
    "lr 0.001": ("rate", ["optimizer.lr=0.001"]),
    "no dropout": ("dropout", ["generator.dropout=0"]),
    "average of weights": ("ema", ["callbacks=ema"]),
    "lsgan": ("game", ["adversarial=lsgan"]),
    "hinge": ("game", ["adversarial=hinge"]),
    "resize last 1": ("resize", ["generator.resize_last=1"]),
    "resize last 3": ("resize", ["generator.resize_last=3"]),
    "resize all": ("resize", ["generator.resize_last=8"]),
    "spectral norm": ("discriminator", ["discriminator.spectral_norm=true", "discriminator.norm=none"]),
    "label smoothing": ("labels", ["adversarial.smoothing=0.1"]),
    "cosine": ("schedule", ["scheduler=cosine"]),
    "constant rate": ("schedule", ["scheduler=constant"]),
    "lambda 200": ("weight", ["model.lambda_l1=200"]),
    "augmentation": ("augment", ["model.augment=[color,translation,cutout]"]),
}
SEEDS = (1, 2)  # beside 0
OVERHEAD = 12  # seconds that a run takes beside its training


class Run(NamedTuple):
    """A training: of some changes, by name, from the paper's recipe."""

    name: str
    seconds: float
    changes: tuple[str, ...] = ()
    seed: int = 0
    kept: bool = False

    @property
    def overrides(self) -> list[str]:
        """Settings of train.py."""
        return [*PAPER, *(word for name in CHANGES if name in self.changes for word in CHANGES[name][1])]

    @property
    def schedule(self) -> str:
        """That of the rate, by its name in conf/scheduler."""
        chosen = [word for word in self.overrides if word.startswith("scheduler=")]
        return chosen[-1].partition("=")[2] if chosen else "linear"

    @property
    def file(self) -> str:
        """Of its claim."""
        return f"{self.name}-{self.seed}".replace(" ", "_").replace("/", "_")


def value(row: dict, base: dict) -> float:
    """What a run is worth: half a dB as much as 0.02 of SSIM, or as all of the grid that the run `base` has."""
    if "PSNR" not in row:  # it failed
        return -float("inf")
    return row["PSNR"] / 0.5 + row["SSIM"] / 0.02 - row["grid"] / max(base["grid"], 1e-6)


def winners(rows: dict[str, dict]) -> list[str]:
    """Of each kind the best change, the one that gains most first."""
    base, best = rows["paper"], {}
    for name, (kind, _) in CHANGES.items():
        gain = value(rows.get(name, {}), base) - value(base, base)
        if gain > best.get(kind, (0.0, ""))[0]:
            best[kind] = (gain, name)
    names = [name for _, name in sorted(best.values(), reverse=True)]
    return [name for name in names if not (name == "label smoothing" and "hinge" in names)]  # which has no labels


def plan(rows: dict[str, dict], seconds: float) -> tuple[list[Run], list[Run], tuple[str, ...] | None]:
    """Runs that can be done now, in order, those that can fill a pause, and the changes of the best if that is known.

    Args:
        rows: of seed 0, by name.
    """
    fillers = [Run("paper", seconds, seed=seed) for seed in SEEDS]
    singles = [Run("paper", seconds), *(Run(name, seconds, (name,)) for name in CHANGES)]
    if not all(run.name in rows for run in singles):
        return singles, fillers, None
    together, best = added_up(rows, winners(rows), seconds)
    return [*singles, *together], fillers, best


def added_up(rows: dict[str, dict], won: list[str], seconds: float) -> tuple[list[Run], tuple[str, ...] | None]:
    """Winners together: the runs that it takes as far as they are known, and in the end which of them stay."""
    chosen, queue, runs = won[:1], won[1:], []
    while queue:
        more = [(*chosen, name) for name in queue[:2]]
        runs += [Run(" + ".join(names), seconds, names) for names in more]
        if not all(" + ".join(names) in rows for names in more):
            return runs, None
        worth = {names[-1]: value(rows[" + ".join(names)], rows["paper"]) for names in more}
        before = value(rows[" + ".join(chosen)], rows["paper"])
        gained = sorted((name for name in worth if worth[name] > before), key=worth.get, reverse=True)
        chosen, queue = [*chosen, *gained[:1]], [*gained[1:], *queue[2:]]
    return runs, tuple(chosen)


def best_of(rows: dict[str, dict]) -> tuple[str, ...]:
    """The changes of the run that is worth most."""
    base = rows.get("paper", {})
    if "grid" not in base:
        return ()
    return tuple(max(rows.values(), key=lambda row: value(row, base))["changes"])


def next_run(folder: Path, left: float, *, seconds: float, ship: float) -> Run | None:
    """The run to be claimed now: "wait" where others are under way, None where all is done or no time is left.

    Args:
        left: seconds that are left.
    """
    taken = {path.name for path in (folder / "claims").glob("*")}
    rows = {row["name"]: row for row in read_rows(folder) if row["seed"] == 0}
    runs, fillers, best = plan(rows, seconds)
    hurry = left < ship + seconds + 2 * OVERHEAD
    if hurry and best is None and rows:
        best = best_of(rows)
    if best is not None:
        best = tuple(_decided(folder, list(best)))
        repeats = [Run("best", seconds, best, seed) for seed in SEEDS]
        last = [Run("best, longer", ship, best, kept=True), Run("paper, longer", ship, kept=True)]
        runs = last if hurry else [*fillers, *repeats, *last]
        fillers = []
    for run in [*runs, *fillers]:
        if run.file not in taken:
            return run if left > run.seconds + OVERHEAD else None
    return Run("wait", 0) if best is None else None


def _decided(folder: Path, best: list[str]) -> list[str]:
    """The changes of the best, as whoever asked first has found them."""
    path = folder / "best.json"
    try:
        with path.open("x") as file:
            file.write(json.dumps(best))
    except FileExistsError:
        while not (text := path.read_text()):
            pass
        return json.loads(text)
    return best


def claim(folder: Path, run: Run) -> bool:
    """Take a run; False where another process was first."""
    (folder / "claims").mkdir(exist_ok=True)
    try:
        (folder / "claims" / run.file).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def settle(folder: Path, row: dict) -> None:
    """Add a row at the end, in one write."""
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(folder: Path) -> list[dict]:
    """Those that are there by now; a last line that is being written does not count."""
    path = folder / "rows.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]
