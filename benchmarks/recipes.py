#!/usr/bin/env python3
"""Which recipe does best in equal time? The paper's, one change at a time, then the winners together.

    python -m benchmarks.recipes data/emoji runs/recipes [--seconds 18] [--ship 80] [--limit 480]

Every run trains for the same seconds, whatever its steps take, with a schedule that ends with them; loading, the first
steps, in which a CUDA graph is recorded, and scoring do not count. Scores are those of validation, and the grid: see
`benchmarks.grid`. The plan is in `benchmarks.recipe_plan`. One process a GPU takes the next run from the folder, which
gets rows.jsonl, a line a run, and in the end the generators of the paper's recipe and of the best one, trained longer.

    python -m benchmarks.recipes --publish runs/recipes/best.pt mine.safetensors     # as p2p to-safetensors would
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

import p2p
from benchmarks.grid import grid
from benchmarks.recipe_plan import Run, claim, next_run, read_rows, settle
from benchmarks.record import commit, head
from p2p.batch import Batch
from p2p.config.cli import quiet_libraries
from p2p.data.cache import PairCache
from p2p.data.gpu_batches import GpuBatches
from p2p.deploy.published import Published, write
from p2p.metrics import image
from p2p.models.inference_view import inference_view, resolve_norm_stats
from p2p.system import atomic
from p2p.system.device import pick_device
from p2p.system.gpus import one_gpu
from p2p.training.capture import CapturedStep
from p2p.training.pix2pix import Pix2Pix

BETWEEN = {"cuda": 20, "cpu": 4}  # steps from one look at the clock to the next
SCHEDULES = {  # share of the time -> factor of the rate, as in conf/scheduler
    "linear": lambda share: min(1.0, 2.0 - 2.0 * share),
    "cosine": lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
    "constant": lambda share: 1.0,
}


class Alone(Pix2Pix):
    """The model without a Trainer."""

    own: list[torch.optim.Optimizer]  # generator first

    def optimizers(self, use_pl_optimizer: bool = True) -> list[torch.optim.Optimizer]:
        """Its own."""
        return self.own

    def manual_backward(self, loss: torch.Tensor) -> None:
        """Plain."""
        loss.backward()


class Pairs:
    """All pairs, decoded once: batches of training, and the whole of validation on the device."""

    def __init__(self, cfg: DictConfig, device: torch.device):
        self.device, data = device, instantiate(cfg.data, _convert_="all")
        self.train: Dataset = data.dataset("train")
        cache = PairCache(self.train.load, count=len(self.train), device=device)
        if device.type == "cuda":
            view = lambda index: self.train.view(index, *cache.pair(index)[0].shape[:2])  # noqa: E731
            self._gpu = GpuBatches(cache, names=self.train.names, view=view, device=device)
        else:
            self._gpu, self.train.cache = None, cache
        val = data.dataset("val")
        self.val = Batch.collate([val[index] for index in range(len(val))]).to(device)

    def batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Without end; of each epoch only full ones."""
        for epoch in itertools.count():
            self.train.epoch_seed.fill_(1_000_000 * seed + 10_000 * epoch)
            order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(1000 * seed + epoch))
            indices = [part.tolist() for part in order.split(batch_size) if len(part) == batch_size]
            if self._gpu is not None:
                yield from self._gpu(indices)
            else:
                yield from (Batch.collate([self.train[index] for index in some]) for some in indices)


def composed(run: Run, root: Path, more: list[str]) -> DictConfig:
    settings = ["run_dir=unused", "data=emoji", f"data.root={root}", *run.overrides, *more]
    cfg = p2p.compose(settings)
    cfg.model._target_ = "benchmarks.recipes.Alone"
    return cfg


def train(run: Run, cfg: DictConfig, pairs: Pairs) -> tuple[Pix2Pix, dict]:
    """For `run.seconds`: the model, averaged if the recipe says so, and how far it came."""
    device, started = pairs.device, time.perf_counter()
    on_gpu = device.type == "cuda"
    lightning.seed_everything(run.seed, workers=True, verbose=False)
    model = instantiate(cfg.model, _convert_="all").to(device)
    networks = [model.generator, *([model.discriminator] if model.discriminator is not None else [])]
    if on_gpu:
        for network in networks:
            network.to(memory_format=torch.channels_last)
    model.own = [model.make_optimizer(network.parameters()) for network in networks]
    model._watch = type(model._watch)(device)
    step = lambda batch: model._both_steps([batch])  # noqa: E731
    if on_gpu:
        step = model._captured = CapturedStep(step, optimizers=model.own, device=device)
    ema = instantiate(cfg.callbacks.ema) if "ema" in cfg.callbacks else None
    here = SimpleNamespace(global_step=0, sanity_checking=False)
    groups = [group for optimizer in model.own for group in optimizer.param_groups]
    rates, schedule = [group["lr"] for group in groups], SCHEDULES[run.schedule]
    if ema is not None:
        ema.on_train_start(here, model)

    began = None
    for steps, batch in enumerate(pairs.batches(cfg.batch_size, run.seed)):
        if steps % BETWEEN[device.type] == 0 and steps:
            if on_gpu:
                torch.cuda.synchronize(device)
            if began is None:  # the first steps make trials and record
                began, first = time.perf_counter(), steps
            share = (time.perf_counter() - began) / run.seconds
            if share >= 1.0:
                break
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * schedule(share)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
            step(batch.channels_last() if on_gpu else batch)
        here.global_step += 1
        if ema is not None:
            ema.on_train_batch_end(here, model, None, batch, steps)
    seconds = time.perf_counter() - began
    model._captured = None
    if ema is not None:
        ema.on_validation_start(here, model)
    facts = {"steps": steps, "epochs": round(steps * cfg.batch_size / len(pairs.train), 2)}
    facts["images_per_s"] = round((steps - first) * cfg.batch_size / seconds, 1)
    return model, facts | {"trained_s": round(seconds, 2), "start_s": round(began - started, 1)}


@torch.no_grad()
def scores(model: Pix2Pix, norm_stats: str, pairs: Pairs) -> dict[str, float]:
    """Of validation, in float32."""
    view = inference_view(model.generator, norm_stats=norm_stats)
    parts = pairs.val.input_NCHW.split(15)
    outputs = torch.cat([view(part).float().contiguous() for part in parts]).clamp(-1.0, 1.0)
    found = {}
    for name, metric in {"PSNR": image.psnr(), "SSIM": image.ssim(), "L1": image.l1()}.items():
        metric = metric.to(pairs.device)
        for output, target in zip(outputs.split(15), pairs.val.target_NCHW.split(15), strict=True):
            metric.update(output, target)
        found[name] = round(metric.compute().item(), 4)
    return found | {"grid": round(grid(outputs, pairs.val.target_NCHW), 4)}


def keep(path: Path, model: Pix2Pix, cfg: DictConfig, norm_stats: str) -> None:
    """The generator in float16, and what `publish` needs; safetensors may not be there."""
    facts = Published(
        generator=OmegaConf.to_container(cfg.generator, resolve=True),
        input_channels=cfg.data.input_channels,
        target_channels=cfg.data.target_channels,
        norm_stats=norm_stats,
        direction=cfg.data.direction,
        preprocess=cfg.transform.preprocess,
        multiple=None,
        image_size=cfg.image_size,
    )
    state = {name: value.cpu().contiguous() for name, value in model.generator.state_dict().items()}
    halves = {name: value.half() if value.ndim == 4 else value for name, value in state.items()}
    torch.save({"generator": halves, "facts": facts._asdict()}, path)


def publish(source: Path, target: Path) -> None:
    """What `keep` has written as a file that `p2p.load` takes."""
    found = torch.load(source, weights_only=True)
    facts = Published(**found["facts"])
    network = instantiate(facts.generator, _convert_="all")
    network.load_state_dict(found["generator"])
    write(target, network, facts)


def work(args: argparse.Namespace) -> None:
    """Take runs until none is left or the time is up."""
    device, folder = pick_device("auto"), args.folder
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    torch.backends.cudnn.benchmark = True
    atomic.write(folder / "head.json", json.dumps(head(args.commit, "lightning", "cvcuda-cu13")) + "\n")
    pairs = Pairs(composed(Run("paper", args.seconds), args.root, args.override), device)
    say = lambda row: print(json.dumps(row), flush=True)  # noqa: E731
    say({"loaded": len(pairs.train), "at": round(time.time() - args.began, 1)})
    while True:
        left = args.limit - (time.time() - args.began)
        run = next_run(folder, left, seconds=args.seconds, ship=args.ship)
        if run is None:
            return
        if run.name == "wait":
            time.sleep(0.5)
            continue
        if not claim(folder, run):
            continue
        row = {"name": run.name, "seed": run.seed, "changes": list(run.changes), "seconds": run.seconds}
        try:
            cfg = composed(run, args.root, args.override)
            norm_stats = resolve_norm_stats(cfg.norm_stats, batch_size=cfg.batch_size)
            model, facts = train(run, cfg, pairs)
            row |= scores(model, norm_stats, pairs) | facts
            if run.kept:
                keep(folder / f"{run.name}.pt", model, cfg, norm_stats)
            del model
        except Exception as error:  # the others go on; in a process of its own, as a failed capture leaves a broken one
            row |= {"error": f"{type(error).__name__}: {error}"[:500]}
        settle(folder, row | {"at": round(time.time() - args.began, 1)})
        say(row)
        if "error" in row and device.type == "cuda":
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.recipes", *sys.argv[1:]])


def main(arguments: list[str] | None = None) -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="emoji, with train/ and val/")
    parser.add_argument("folder", type=Path, help="where results go")
    parser.add_argument("--seconds", type=float, default=18, help="of each run")
    parser.add_argument("--ship", type=float, default=80, help="seconds of the two at the end")
    parser.add_argument("--limit", type=float, default=480, help="seconds of all")
    parser.add_argument("--override", action="append", default=[], help="a setting of all runs")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--publish", action="store_true", help="ROOT is a .pt and FOLDER the .safetensors to write")
    args = parser.parse_args(arguments)
    if args.publish:
        publish(args.root, args.folder)
        return
    args.root = args.root.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.worker:
        work(args)
        return
    command = [sys.executable, "-m", "benchmarks.recipes", *(arguments or sys.argv[1:]), "--worker"]
    command += [f"--began={args.began}"]
    places = [one_gpu(number) for number in range(torch.cuda.device_count())] or [{}]
    workers = [subprocess.Popen(command, env=os.environ | place) for place in places]
    codes = [worker.wait() for worker in workers]
    for row in sorted(read_rows(args.folder), key=lambda row: -row.get("PSNR", 0)):
        print(f"{row['name']:40} {row['seed']}  " + "  ".join(f"{row.get(k, ''):>8}" for k in ("PSNR", "SSIM", "grid")))
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
