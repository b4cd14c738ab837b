"""Files that are read, with outputs that are not saved. In a module of its own, which workers import without torch."""

import numpy as np

from p2p.pipelines.files import Clock, Files, Size


class Unsaved(Files):
    """Loads, and saves nothing."""

    def save(self, name: str, frame_HWC: np.ndarray, size: Size, clock: Clock) -> None:
        """Do nothing."""
