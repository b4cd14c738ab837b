"""A program that is timed, among several that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from p2p.deploy.export import psnr_db


def synchronize(device: torch.device) -> None:
    """Wait for the device; a CPU has done its work when the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def burst(run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, calls: int) -> float:
    """Seconds a call, of calls that do not wait for one another."""
    synchronize(x.device)
    started = time.perf_counter()
    for _ in range(calls):
        run(x)
    synchronize(x.device)
    return (time.perf_counter() - started) / calls


@dataclass
class Candidate:
    """A program for one batch size, and its measurements or why there are none.

    Attributes:
        backend, precision, rewrites, options: how it is made.
        reason: why it cannot be made or run.
        build_s: seconds from the network to the end of the first call.
        run: the program, and `input_NCHW` a batch for it on its device, in its dtype.
        latency_s: of calls each of which was waited for.
        burst_s: of calls that were queued one behind the other, a mean for each round.
        psnr: of each image against fp32 eager, in dB.
    """

    backend: str
    precision: str
    rewrites: str
    options: dict
    reason: str | None = None
    build_s: float | None = None
    run: Callable[[torch.Tensor], torch.Tensor] | None = None
    input_NCHW: torch.Tensor | None = None
    latency_s: list[float] = field(default_factory=list)
    burst_s: list[float] = field(default_factory=list)
    psnr: torch.Tensor | None = None
    _calls: int = 0

    @property
    def name(self) -> str:
        """For the table."""
        marks = [key for key, value in self.options.items() if value is True]
        return " ".join([self.backend, self.precision, self.rewrites, *marks])

    def attempt(self, step: Callable[..., None], *args) -> None:
        """Do `step(self, *args)` unless something failed before; a failure is the reason, never the end."""
        if self.reason is not None:
            return
        try:
            step(self, *args)
        except Exception as error:  # compilers and drivers fail in many ways
            lines = str(error).strip().splitlines()
            self.reason = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
        if self.reason is not None:
            self.run = self.input_NCHW = None  # gives its memory back

    def take_turn(self, seconds: float) -> None:
        """A round: about `seconds` of calls one after another, and as long of calls at once."""
        run, x = self.run, self.input_NCHW
        if not self._calls:
            burst(run, x, 3)  # warm-up
            self._calls = max(3, min(200, int(seconds / burst(run, x, 3))))
        burst(run, x, 1)  # what ran before has taken the caches
        self.latency_s += [burst(run, x, 1) for _ in range(self._calls)]
        self.burst_s.append(burst(run, x, self._calls))

    def compare(self, images_NCHW: torch.Tensor, expected_NCHW: torch.Tensor) -> None:
        """Set `psnr` of all images; the last batch is filled up with the first ones."""
        batch, count = len(self.input_NCHW), len(images_NCHW)
        indices = torch.arange(-(-count // batch) * batch) % count
        outputs = [self.run(images_NCHW[some].to(self.input_NCHW)).cpu() for some in indices.split(batch)]
        self.psnr = psnr_db(torch.cat(outputs)[:count], expected_NCHW)

    def row(self, batch: int, limit: float) -> dict:
        """As it stands in the JSON; `limit` in images/s."""
        row = {"batch": batch, "backend": self.backend, "precision": self.precision, "rewrites": self.rewrites}
        row |= {"options": self.options, "build_s": self.build_s and round(self.build_s, 1)}
        if self.reason is not None:
            return row | {"reason": self.reason}
        latency = sorted(1e3 * seconds for seconds in self.latency_s)
        speed = batch / statistics.median(self.burst_s)
        return row | {
            "images_per_s": round(speed, 1),
            "of_limit": round(speed / limit, 4),
            "latency_median_ms": round(statistics.median(latency), 4),
            "latency_p99_ms": round(latency[int(0.99 * (len(latency) - 1) + 0.5)], 4),
            "latency_samples": len(latency),
            "psnr_mean_db": round(self.psnr.mean().item(), 2),
            "psnr_worst_db": round(self.psnr.min().item(), 2),
        }
