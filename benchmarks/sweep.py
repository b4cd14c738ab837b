"""Several trainings as one sweep of `train.py`, which continues after a stop."""

import subprocess
import sys
from pathlib import Path

from benchmarks.record import ROOT
from p2p.training.resume import read_checkpoint


def epochs_done(run_dir: Path) -> int:
    """How many epochs the last checkpoint of a run has behind it; 0 where there is none."""
    last = run_dir / "checkpoints/last.ckpt"
    return read_checkpoint(last)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] if last.is_file() else 0


def sweep(experiments: list[str], folder: Path, overrides: list[str], *, epochs: int) -> None:
    """Train each preset of conf/experiment for `epochs`, in the run folder `folder/<preset>`.

    A run that has them all is left alone, and one that was stopped goes on with its last checkpoint.

    Raises:
        SystemExit: train.py failed, and has said why.
    """
    done = {name: epochs_done(folder / name) for name in experiments}
    begun = [name for name in experiments if 0 < done[name] < epochs]
    new = [name for name in experiments if not done[name]]
    where = [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=${hydra:runtime.choices.experiment}"]
    for names, resume in ((begun, ["ckpt_path=last"]), (new, [])):
        if names:
            settings = [f"experiment={','.join(names)}", f"epochs={epochs}", *overrides, *resume]
            if subprocess.run([sys.executable, ROOT / "train.py", "-m", *where, *settings]).returncode:
                sys.exit("train.py did not come to its end, and says why above; the same command goes on")
