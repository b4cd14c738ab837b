"""Files that are numbered by epochs, and those among them that are not of this run."""

from __future__ import annotations

import re
from pathlib import Path


def remove_leftovers(folder: Path, pattern: str, *, epoch: int, resumed: Path | None) -> None:
    """Remove those that an earlier run left; of a run that goes on here, those of epochs that are trained again.

    Args:
        folder: in the folder of the run.
        pattern: of the names, as a regular expression whose first group is the epoch.
        epoch: of what was just written, which stays.
        resumed: the checkpoint that the training goes on from.
    """
    goes_on = resumed is not None and resumed.resolve().parent.parent == folder.resolve().parent
    for path in folder.iterdir():
        found = re.fullmatch(pattern, path.name)
        if found and int(found[1]) != epoch and (int(found[1]) > epoch or not goes_on):
            path.unlink()
