"""A whole U-Net of `p2p.models.unet` by the kernels of this folder, in buffers that never move."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import torch
import triton
from triton import language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from p2p.deploy.kernels import instance_norm, shifted_gemm
from p2p.deploy.kernels.tiles import Tile, candidates, fastest
from p2p.deploy.kernels.weights import Layer, Weights
from p2p.system.cores import available_cores

NONE, RELU, TANH = "none", "relu", "tanh"
TRIALS = 8  # tiles that are measured for each product
SMALL = 17 * 17  # rows of an image that one program normalizes


Start = Callable[[triton.JITFunction, tuple[int, int]], Callable[..., object]]


def now(kernel: triton.JITFunction, grid: tuple[int, int]) -> Callable[..., object]:
    """Start a kernel as usual."""
    return kernel[grid]


def compiled(kernel: triton.JITFunction, grid: tuple[int, int]) -> Callable[..., object]:
    """Only compile it, which `triton.AsyncCompileMode` has its threads do."""
    return partial(kernel.warmup, grid=grid)


@dataclass
class Step:
    """One product of the network: what `launch` needs, and what its tiles depend on."""

    a: torch.Tensor
    w: torch.Tensor
    launch: Callable[..., object]
    run: Callable[[], object] = field(default=lambda: None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and a quarter of the depth."""
        return self.a.shape[0], self.w.shape[0], self.a.shape[1]

    def prepare(self, tile: Tile) -> Callable[..., object]:
        """Choose the tile; returns the launch."""
        rows, columns, _ = self.shape
        a = TensorDescriptor.from_tensor(self.a, [tile.rows, tile.depth])
        w = TensorDescriptor.from_tensor(self.w, [tile.columns, tile.depth])
        programs = math.ceil(rows / tile.rows) * math.ceil(columns / tile.columns)
        shared = tile.splits > 1
        workspace = torch.empty(tile.splits * rows * columns if shared else 1, device=self.a.device)
        arrived = torch.zeros(programs if shared else 1, dtype=torch.int32, device=self.a.device)
        self.run = partial(self.launch, a, w, workspace, arrived, (programs, tile.splits), tile)
        return self.run


class UNetKernels:
    """The network for one batch size; call it like a module.

    Args:
        weights: on `device`.
        batch, height, width: of the input.
        device: a CUDA device.
    """

    def __init__(self, weights: Weights, *, batch: int, height: int, width: int, device: torch.device):
        self._device, self._batch = device, batch
        down, up = weights.down, weights.up
        self._dtype, inner = down[0].weight.dtype, len(down) - 1
        sides = [(height >> level, width >> level) for level in range(1, len(down) + 1)]
        channels = [len(layer.bias) for layer in down]

        def rows(level: int, columns: int, reader: Layer) -> torch.Tensor:
            return self._rows(sides[level], columns, reader.weight.dtype)

        cells = [None] + [rows(level, 4 * channels[level - 1], down[level]) for level in range(1, len(down))] + [None]
        both = [2 if weights.skips and level < inner else 1 for level in range(len(down))]
        flat = [rows(level, channels[level] * both[level], up[inner - level]) for level in range(len(down))]
        self._steps: list[Step] = []
        self._runs: list[Callable[[], object]] = []
        self._input = torch.empty(0)
        self._output = torch.zeros(batch, len(up[-1].bias), height, width, dtype=self._dtype, device=device)
        for level, layer in enumerate(down):
            skip = flat[level] if weights.skips or level == inner else None
            add = self._add_down if level else self._add_first
            add(layer, cells[level], cells[level + 1], skip, sides[level])
        for level, layer in zip(reversed(range(len(down))), up, strict=True):
            out = flat[level - 1][:, channels[level - 1] if weights.skips else 0 :] if level else None
            self._add_up(layer, flat[level], out, sides[level])

    @property
    def products(self) -> list[tuple[int, int, int]]:
        """Rows, columns and a quarter of the terms of each, in the order of `tune`."""
        return [step.shape for step in self._steps]

    def tune(self, tiles: list[Tile] | None = None) -> list[Tile]:
        """Choose the tile of every product: those given, or by measurement. Returns them, for a program file."""
        if tiles is None:
            processors = torch.cuda.get_device_properties(self._device).multi_processor_count
            likely = [
                candidates(*step.shape, item_bytes=step.a.element_size(), processors=processors)[:TRIALS]
                for step in self._steps
            ]
            # Some hundred kernels, by all cores. Whatever cannot be is found out again, and left out, by `fastest`.
            with ThreadPoolExecutor(available_cores()) as pool, triton.AsyncCompileMode(pool, ignore_errors=True):
                for step, some in zip(self._steps, likely, strict=True):
                    for tile in some:
                        with suppress(Exception):
                            step.prepare(tile)(start=compiled)
            tiles = [fastest(some, step.prepare) for step, some in zip(self._steps, likely, strict=True)]
        for step, tile in zip(self._steps, tiles, strict=True):
            step.prepare(tile)
        return tiles

    def __call__(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        """float16 (N, C, H, W) in [-1, 1] -> the same; the output's memory is overwritten by the next call."""
        self._input = input_NCHW.contiguous()
        for run in self._runs:
            run()
        return self._output

    def _add_first(self, layer: Layer, _, main: torch.Tensor, skip: torch.Tensor | None, side: tuple[int, int]):
        height, width = side
        weight, bias = layer.weight, layer.bias
        columns, rows = len(weight), self._batch * height * width
        grid = (math.ceil(rows / 128), math.ceil(columns / 64))

        def run():
            shifted_gemm.first[grid](
                self._input, weight, bias, main, main if skip is None else skip,
                rows, columns, height, width, 0 if skip is None else skip.stride(0),
                layer.cells_times, layer.flat_times,
                CHANNELS=weight.shape[1], CELLS=True, FLAT=skip is not None, BM=128, BN=64,
            )  # fmt: skip

        self._runs.append(run)

    def _add_down(
        self,
        layer: Layer,
        a: torch.Tensor,
        main: torch.Tensor | None,
        skip: torch.Tensor | None,
        side: tuple[int, int],
    ):
        height, width = side
        w, bias = layer.weight, layer.bias
        normed = layer.norm is not None
        raw = self._raw(skip, side, len(w)) if normed else skip
        flags = {"RAW": normed, "CELLS": main is not None and not normed, "FLAT": raw is not None}
        cells, flat = (raw if main is None else main), (main if raw is None else raw)  # what is None is not used

        def launch(a_desc, w_desc, workspace, arrived, grid, tile: Tile, start: Start = now):
            start(shifted_gemm.down, grid)(
                a_desc, w_desc, workspace, arrived, bias if layer.scale is None else layer.scale, bias, cells, flat,
                a.shape[0], len(w), a.shape[1], width + 1, height, width, flat.stride(0),
                layer.cells_times, layer.flat_times, **sums_of(layer), **flags,
                SPLITS=tile.splits, BM=tile.rows, BN=tile.columns, BK=tile.depth,
                num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip

        self._add(Step(a, w, launch))
        if normed:
            self._add_norm(layer, raw, main, skip, side)

    def _add_up(self, layer: Layer, a: torch.Tensor, out: torch.Tensor | None, side: tuple[int, int]):
        height, width = side
        w, bias, channels = layer.weight, layer.bias, len(layer.bias)
        if out is None:
            target, strides, activation = self._output, [self._output.stride(i) for i in (0, 2, 3, 1)], TANH
        else:
            target = out if layer.norm is None else self._raw(out, (2 * height, 2 * width), channels)
            apart, pitch = target.stride(0), 2 * width + 1
            strides = [apart * pitch * (2 * height + 1), apart * pitch, apart, 1]
            activation = NONE if layer.norm is not None else RELU

        def launch(a_desc, w_desc, workspace, arrived, grid, tile: Tile, start: Start = now):
            start(shifted_gemm.up, grid)(
                a_desc, w_desc, workspace, arrived, bias if layer.scale is None else layer.scale, bias, target,
                a.shape[0], len(w), a.shape[1], width + 1, height, width, channels, *strides, layer.flat_times,
                **sums_of(layer), ACTIVATION=activation,
                SPLITS=tile.splits, BM=tile.rows, BN=tile.columns, BK=tile.depth,
                num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip

        self._add(Step(a, w, launch))
        if layer.norm is not None:
            self._add_norm(layer, target, None, out, (2 * height, 2 * width))

    def _rows(self, side: tuple[int, int], columns: int, dtype: torch.dtype) -> torch.Tensor:
        height, width = side
        return torch.zeros(self._batch * (height + 1) * (width + 1), columns, dtype=dtype, device=self._device)

    def _raw(self, flat: torch.Tensor | None, side: tuple[int, int], channels: int) -> torch.Tensor:
        """Where a layer's output waits for its norm: where it will be, if there is such a place, of 16 bits."""
        return flat if flat is not None and flat.dtype == self._dtype else self._rows(side, channels, self._dtype)

    def _add_norm(
        self,
        layer: Layer,
        raw: torch.Tensor,
        main: torch.Tensor | None,
        flat: torch.Tensor | None,
        side: tuple[int, int],
    ):
        height, width = side
        weight, bias = layer.norm
        columns, rows = len(weight), (height + 1) * (width + 1)
        across = math.ceil(columns / 64)
        # Some four programs a processor, and no more: `normalize` reads the sums of all blocks in every program.
        blocks = min(64, power_of_two(math.ceil(rows / 64)), power_of_two(math.ceil(528 / (self._batch * across))))
        if rows <= SMALL:
            blocks = 0
        sums = torch.empty(self._batch, max(1, blocks), 2, columns, device=self._device)

        def run():
            if blocks:
                instance_norm.statistics[(self._batch, blocks, across)](
                    raw, sums, rows, columns, raw.stride(0), BLOCKS=blocks, BM=64, BN=64
                )
            instance_norm.normalize[(self._batch, math.ceil(rows / 128) if blocks else 1, across)](
                raw, sums, weight, bias, raw if main is None else main, raw if flat is None else flat,
                height, width, columns, raw.stride(0), 0 if flat is None else flat.stride(0), layer.eps,
                layer.cells_times, layer.flat_times,
                CELLS=main is not None, FLAT=flat is not None, BLOCKS=blocks, BM=128 if blocks else 32, BN=64,
            )  # fmt: skip

        self._runs.append(run)

    def _add(self, step: Step):
        self._steps.append(step)
        self._runs.append(lambda: step.run())


def sums_of(layer: Layer) -> dict[str, object]:
    """How a layer's products are added up: integers exactly, all else in float32."""
    return {"SCALED": layer.scale is not None, "SUM": tl.int32 if layer.weight.dtype == torch.int8 else tl.float32}


def power_of_two(value: int) -> int:
    """The next power of two, as Triton's ranges need it."""
    return 1 << (value - 1).bit_length()
