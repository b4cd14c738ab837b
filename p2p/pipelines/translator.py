"""A batch between two rings of slots, and the CPU's engine there; `p2p.pipelines.gpu_translator` has the GPU's."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import groupby
from types import TracebackType

import numpy as np
import torch

from p2p.batch import from_frames
from p2p.data.pairs import Pair
from p2p.pipelines.files import Failure
from p2p.pipelines.messages import Failed
from p2p.pipelines.slots import FAILED, HIGH_DEPTH, frame_in
from p2p.pipelines.stages import Stages


@dataclass
class SlotBatch:
    """What an input slot holds: a batch, or several small ones.

    Attributes:
        slot: which one.
        pairs: of each row what it is.
        found: of each row what became of it, `ROW`s of the slot.
        failed: of each row that cannot be translated at which stage it failed, and why.
    """

    slot: int
    pairs: list[Pair]
    found: np.ndarray
    failed: Failed = field(default_factory=dict)

    @property
    def rows(self) -> list[int]:
        """What can be translated."""
        return np.flatnonzero(self.found["state"] != FAILED).tolist()

    def in_state(self, state: int) -> list[int]:
        """Rows of which that became."""
        return np.flatnonzero(self.found["state"] == state).tolist()

    def fail(self, row: int, failure: Failure) -> None:
        """A row cannot be translated after all."""
        self.found[row]["state"], self.failed[row] = FAILED, failure.args


def batches(rows: list[int], batch_size: int) -> list[list[int]]:
    """The rows of a slot that the engine gets at a time: the same images as in `p2p.pipelines.sequential`."""
    return [list(some) for _, some in groupby(rows, key=lambda row: row // batch_size)]


def gather(batch: SlotBatch, rows: list[int], input_NHWC: np.ndarray, high_depth_NHWC: np.ndarray) -> torch.Tensor:
    """The frames in some rows, (N, H, W, C): a view of the slot, uint8, but where there are gaps or high depth."""
    frames = torch.from_numpy(input_NHWC[batch.slot])
    high = sorted(set(batch.in_state(HIGH_DEPTH)).intersection(rows))
    if not high and len(rows) == rows[-1] - rows[0] + 1:
        return frames[rows[0] : rows[-1] + 1]
    if not high:
        return frames[rows]
    values = from_frames(frames).permute(0, 2, 3, 1)
    values[high] = torch.from_numpy(high_depth_NHWC[batch.slot, high])
    return values[rows]


class CpuTranslator:
    """Translates a batch while the host waits; the workers do not. Images at their own sizes also on a GPU."""

    depth = 1

    def __init__(self, stages: Stages, arrays: dict[str, np.ndarray], *, batch_size: int):
        self._stages, self._batch_size = stages, batch_size
        self._inputs = arrays["input"], arrays["high_depth"]
        self._output_NHWC = arrays["output"]
        self._done: deque[tuple[SlotBatch, int]] = deque()

    def __len__(self) -> int:
        return len(self._done)

    def load(self, batch: SlotBatch) -> None:
        """Nothing: the slot is where the engine reads."""

    def start(self, batch: SlotBatch, slot: int) -> None:
        """Translate a slot into an output slot."""
        first = 0
        if self._stages.any_size is not None:
            self._fill(batch, slot)
            return
        for rows in batches(batch.rows, self._batch_size):
            translated = self._stages.translate(gather(batch, rows, *self._inputs))
            self._output_NHWC[slot, first : first + len(rows)] = translated
            first += len(rows)
        self._done.append((batch, slot))

    def _fill(self, batch: SlotBatch, slot: int) -> None:
        """`start` of images at their own sizes, on a GPU, too."""
        frames: list[np.ndarray] = []
        outputs: list[np.ndarray] = []
        for row in batch.rows:
            found = batch.found[row]
            slots = self._inputs[int(found["state"] == HIGH_DEPTH)]
            frames.append(frame_in(slots, batch.slot, row, found))
            outputs.append(frame_in(self._output_NHWC, slot, len(outputs), found))
        self._stages.fill(frames, outputs, batch_size=self._batch_size)
        self._done.append((batch, slot))

    def ready(self) -> bool:
        """Whether `finish` returns at once."""
        return True

    def finish(self) -> tuple[SlotBatch, int]:
        """The oldest batch, whose input slot is free again, and the output slot that it is in."""
        return self._done.popleft()

    def close(self) -> None:
        """Nothing is left to measure."""

    def end(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is to be ended."""
