#!/usr/bin/env python3
"""How fast does each backend run the generator, how near is it to the hardware's limit, and how exact is it?

    python -m benchmarks.generator [--batch 1,8,32,128] [--norm-stats running] [--programs eager,"triton fp16",...]

A U-Net of the size and with the activations of a trained one, the shipped images. One program a row, made for that
batch size; all of a batch size take turns, so that a drift of the clock hits them alike. Input and output stay on
the device. The limit is what a large matrix product reaches in the same rounds, over the network's FLOPs.
"""

import argparse
import copy
import gc
import importlib
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.candidate import Candidate, burst, synchronize
from benchmarks.record import ROOT, commit, head
from p2p.codecs.pillow import Pillow
from p2p.config.cli import quiet_libraries
from p2p.data.images import read_input
from p2p.data.pairs import find_pairs
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy import rewrite
from p2p.deploy.precision import DTYPES
from p2p.deploy.rewrite import fold_batch_norm
from p2p.models.inference_view import inference_view
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.system import atomic
from p2p.system.device import pick_device

PACKAGES = (
    "triton",
    "torch-tensorrt",
    "torch-tensorrt-rtx",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "onnxruntime",
    "onnxruntime-gpu",
)

# What runs it, precision on a GPU (a CPU gets fp32), rewrites ("fold", and those of `p2p.deploy.rewrite.apply`),
# further arguments of the backend's export.
# "module" is the nn.Module called as it is, "compile" is torch.compile of it; all else are backends.
PROGRAMS = [
    ("module", "fp32", "none", {}),
    ("eager", "fp16", "none", {}),
    ("eager", "fp16", "fold+last", {}),
    ("compile", "fp16", "none", {}),
    ("compile", "fp16", "fold+last+blocks", {}),
    ("triton", "fp16", "fold", {}),
    ("triton", "int8", "fold", {}),  # fitted to the images that it is judged by, which flatters it by a little
    ("triton", "fp8", "fold", {}),
    ("torch_tensorrt", "fp16", "none", {}),
    ("torch_tensorrt", "fp16", "fold+last+blocks", {}),
    ("aot_inductor", "fp16", "fold+last+blocks", {}),
    ("aot_inductor", "fp16", "fold+last+blocks", {"max_autotune": True}),
    ("onnx", "fp16", "fold+last", {}),
]


def trained_like(images_NCHW: torch.Tensor, norm_stats: str) -> nn.Module:
    """Initialized as training does it, BatchNorm set apart from its start but fit for the activations; seed fixed."""
    torch.manual_seed(0)
    network = UNet(image_size=images_NCHW.shape[-1])
    initialize(network)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.momentum = 1.0  # the statistics of this one batch
    with torch.no_grad():
        network.train()(images_NCHW)
    for norm in norms:
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25))
    return inference_view(network, norm_stats=norm_stats)


def build(candidate: Candidate, network: nn.Module, images_NCHW: torch.Tensor, batch: int, folder: Path) -> None:
    """Make its program and call it once, which may compile, tune or record."""
    started = time.perf_counter()
    device, dtype = pick_device("auto"), DTYPES.get(candidate.precision)
    names = [name for name in candidate.rewrites.split("+") if name != "none"]
    if "fold" in names:
        names.remove("fold")
        network = fold_batch_norm(network)
    if candidate.backend in ("module", "compile"):
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        run = copy.deepcopy(rewrite.apply(network, names)).to(device, dtype, memory_format=layout)
        if candidate.backend == "compile":
            run = torch.compile(run, mode="reduce-overhead" if device.type == "cuda" else "default", dynamic=False)
    else:
        backend = importlib.import_module(f"p2p.deploy.backends.{candidate.backend}")
        candidate.reason = backend.unavailable()
        if candidate.reason is not None:
            return
        options = {"precision": candidate.precision, "min_batch": batch, "max_batch": batch} | candidate.options
        if candidate.backend != "triton":  # whose kernels are the rewrite
            options["rewrites"] = names
        program = backend.export(network, images_NCHW, folder, **options)
        run, dtype = backend.load(program, folder, device=device), getattr(torch, program.dtype)
    candidate.run = run
    candidate.input_NCHW = images_NCHW[torch.arange(batch) % len(images_NCHW)].to(device, dtype)
    run(candidate.input_NCHW)
    synchronize(device)
    candidate.build_s = time.perf_counter() - started


def show(batch: int, candidates: list[Candidate], limit: float) -> list[dict]:
    """The rows of a batch size; prints them, fastest first, then what did not run."""
    print(f"\nbatch {batch}; the arithmetic allows {limit:,.0f} images/s")
    heads = ("images/s", "of limit", "median ms", "p99 ms", "PSNR dB", "worst dB", "build s")
    print(f"{'program':44}" + "".join(f"{text:>10}" for text in heads))
    rows = {candidate.name: candidate.row(batch, limit) for candidate in candidates}
    for name, row in sorted(rows.items(), key=lambda item: -item[1].get("images_per_s", 0)):
        if "reason" in row:
            print(f"{name:44}  {row['reason']}")
            continue
        figures = f"{row['images_per_s']:10,.1f}{row['of_limit']:10.1%}{row['latency_median_ms']:10.3f}"
        figures += f"{row['latency_p99_ms']:10.3f}{row['psnr_mean_db']:10.1f}{row['psnr_worst_db']:10.1f}"
        print(f"{name:44}{figures}{row['build_s']:10.1f}")
    print(flush=True)
    return list(rows.values())


@torch.no_grad()
def main() -> None:
    quiet_libraries()
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="1,8,32,128", help="batch sizes, in this order")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--norm-stats", default="running", choices=["running", "instance"])
    parser.add_argument("--programs", default="", help="only these, by how their rows begin: module,triton fp16,...")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--round-s", type=float, default=0.1, help="seconds of a program's turn, twice")
    parser.add_argument("--budget-s", type=float, default=480, help="no builds after; every batch size has its share")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/generator.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()
    started = time.perf_counter()

    device = pick_device("auto")
    transform, decode = Torchvision(image_size=options.image_size), Pillow().decode
    pairs = find_pairs(ROOT / "data/samples/val")
    images = torch.stack([transform.eval(read_input(pair, decode)) for pair in pairs])
    network = trained_like(images, options.norm_stats)
    expected = torch.cat([network(image[None]) for image in images])
    with FlopCounterMode(display=False) as counter:
        network(images[:1])
    flop = counter.get_total_flops()
    side, dtype = (8192, torch.float16) if device.type == "cuda" else (1024, torch.float32)
    matrix = torch.randn(side, side, device=device, dtype=dtype)

    programs = PROGRAMS
    if device.type == "cpu":
        programs = [(backend, "fp32", *rest) for backend, precision, *rest in programs if precision in ("fp32", "fp16")]
    wanted = tuple(options.programs.split(","))
    programs = [program for program in programs if Candidate(*program).name.startswith(wanted)]
    record = head(options.commit, *PACKAGES) | {
        "network": {"name": "UNet", "image_size": options.image_size, "flop": flop, "norm_stats": options.norm_stats},
        "tf32": torch.backends.cudnn.allow_tf32,  # of "module fp32" on a GPU, PyTorch's default
        "images": len(images),
        "rounds": options.rounds,
        "limits": [],
        "rows": [],
    }
    sizes = [int(size) for size in options.batch.split(",")]
    for done, batch in enumerate(sizes, start=1):
        deadline = started + options.budget_s * done / len(sizes)
        candidates, products = [Candidate(*program) for program in programs], []
        with tempfile.TemporaryDirectory() as folder:
            for index, each in enumerate(candidates):
                if time.perf_counter() > deadline:
                    each.reason = f"not built: --budget-s={options.budget_s:g} was used up"
                    continue
                own = Path(folder, str(index))
                own.mkdir()
                each.attempt(build, network, images, batch, own)
                print(f"batch {batch}, {each.name}: {each.reason or f'built in {each.build_s:.1f} s'}", flush=True)
            for _ in range(options.rounds):
                products.append(burst(lambda x: x @ x, matrix, 5))
                for each in candidates:
                    each.attempt(Candidate.take_turn, options.round_s)
            for each in candidates:
                each.attempt(Candidate.compare, images, expected)
        tflops = 2 * side**3 / statistics.median(products) / 1e12
        limit = tflops * 1e12 / flop
        record["limits"].append({"batch": batch, "tflops": round(tflops, 2), "images_per_s": round(limit, 1)})
        record["rows"] += show(batch, candidates, limit)
        atomic.write(options.output, json.dumps(record, indent=1) + "\n")  # after each, so that nothing can be lost
        del candidates, each
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
