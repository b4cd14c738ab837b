"""Export a trained generator to a program that runs without its code: what `export.py` does, in order."""

from __future__ import annotations

import copy
import shlex
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra.utils import instantiate
from omegaconf import DictConfig

from p2p.batch import Batch
from p2p.commands.export_sizes import check_size, dynamic_sizes, settle_size
from p2p.commands.results import Exported
from p2p.config.pasteable import command_line, run_settings
from p2p.config.shown import as_typed
from p2p.data.dataset import PairDataset
from p2p.data.reading import readings_of
from p2p.deploy import rewrite, triton_repository
from p2p.deploy.accuracy import PSNR_CEILING
from p2p.deploy.artifact import place_for
from p2p.deploy.backend import check_trusted
from p2p.deploy.export import export, load_weights
from p2p.deploy.precision import EIGHT_BITS, dtype_of
from p2p.deploy.signature import check_batches
from p2p.deploy.stale import facts_of
from p2p.interop.config import reference_record
from p2p.models.inference_view import resolve_norm_stats
from p2p.report.tables import show_considered
from p2p.run.checkpoint import find_checkpoint
from p2p.run.record import read_record, validated_weights
from p2p.system.device import pick_device
from p2p.system.gpu_faults import or_say_what_fits
from p2p.system.plural import counted


def inputs_of(dataset: PairDataset, count: int) -> Batch:
    """The first inputs, of those that have the first one's size, which is that of a program."""
    batches = [dataset[index] for index in range(min(count, len(dataset)))]
    alike = [batch for batch in batches if batch.input_NCHW.shape == batches[0].input_NCHW.shape]
    return Batch.collate([replace(batch, target_NCHW=None) for batch in alike])


def main(cfg: DictConfig) -> Exported:
    """Export, or say which largest batch the GPU's memory holds."""
    backend = cfg.backend
    fastest = "batch_size" in backend
    size = cfg.batch_size or 8 if fastest else backend.get("max_batch")
    compiled = backend._target_.split(".")[-2] in ("auto", "triton", "torch_tensorrt")  # for 32, if not told otherwise
    return or_say_what_fits(
        partial(export_program, cfg),
        setting="batch_size" if fastest else "backend.max_batch",
        size=size or max(backend.get("min_batch", 1), 32 * compiled),
        attempt=partial(try_export, cfg),
    )


def try_export(cfg: DictConfig, largest: int) -> None:
    """Export a program of smaller batches, and keep nothing; the build cache may."""
    cfg = copy.deepcopy(cfg)
    if "batch_size" in cfg.backend:
        cfg.batch_size = largest
    for name in {"max_batch", "opt_batch"}.intersection(cfg.backend):
        cfg.backend[name] = largest
    if "min_batch" in cfg.backend:
        cfg.backend.min_batch = min(cfg.backend.min_batch, largest)
    with TemporaryDirectory() as folder, redirect_stdout(None):
        cfg.output, cfg.triton_repository = str(Path(folder) / "export"), None
        export_program(cfg)


def check_export(cfg: DictConfig, record: DictConfig, *, of_a_run: bool) -> None:
    """Refuse what an export would not heed, before any work; the backends' own arguments as far as all have them.

    Args:
        record: the settings of the run, or what stands for it of a .pth.
        of_a_run: its generator is that of a run, which has settings of its own.

    Raises:
        ValueError: the first setting that is of something else, and where it belongs.
    """
    for key, own in {"image_size": record.image_size, "direction": record.data.direction}.items():
        if of_a_run and cfg[key] not in (None, own):
            given, own = as_typed(cfg[key]), as_typed(own)
            raise ValueError(f"{key}={given} applies only to a .pth, and this run has {key}={own}: leave it out")
    check_size(cfg, record)
    if cfg.triton_repository is not None:
        check_served(cfg)
    backend = cfg.backend
    for name in (backend._target_.rpartition(".")[0], *(backend.get("backends") or ())):
        if not name.startswith("p2p.deploy."):
            check_trusted(name, "export")  # which loads what it has written, as infer will
    if cfg.batch_size is not None and "batch_size" not in backend:
        raise ValueError(
            f"batch_size={cfg.batch_size} applies only to backend=fastest: use backend.max_batch={cfg.batch_size}"
        )
    if not 0 <= cfg.min_psnr <= PSNR_CEILING:
        raise ValueError(f"min_psnr={cfg.min_psnr:g} is out of range: use 0 to {PSNR_CEILING:g} dB")
    precision = backend.get("precision")
    if precision not in (None, *EIGHT_BITS):
        dtype_of(precision)
    if "min_batch" in backend:
        check_batches(backend.min_batch, backend.max_batch)
    rewrite.check_names(backend.get("rewrites", ()))
    if backend.get("tf32") and precision != "fp32":
        raise ValueError(f"backend.tf32=true applies only to backend.precision=fp32, not to {precision}: leave one out")


def check_served(cfg: DictConfig) -> None:
    """Raise a ValueError if triton_repository= does not suit the other settings, or something else is in its place."""
    backend = cfg.backend._target_.removeprefix("p2p.deploy.backends.").removesuffix(".export")
    triton_repository.check(backend, frames=cfg.frames, min_batch=cfg.backend.get("min_batch", 1), name=cfg.name)
    for name in triton_repository.names_of(backend, cfg.name):
        folder = triton_repository.place_for(Path(cfg.triton_repository), name)
        if folder.is_relative_to(Path(cfg.output).resolve()):
            raise ValueError(
                f"triton_repository={cfg.triton_repository} is in output={cfg.output}, which an export replaces: name"
                " another folder"
            )


def export_program(cfg: DictConfig) -> Exported:
    """Export the generator of cfg.run_dir to cfg.output, and say how close to fp32 it is."""
    place_for(Path(cfg.output))  # before any work
    run_dir = Path(cfg.run_dir)
    checkpoint = find_checkpoint(run_dir, cfg.ckpt_path)
    if checkpoint.suffix == ".pth":
        record = reference_record(checkpoint, image_size=cfg.image_size, direction=cfg.direction or "AtoB")
    else:
        instead = ", or export a .pth of pytorch-CycleGAN-and-pix2pix with ckpt_path="
        record = read_record(run_dir, checkpoint, instead=instead)
    check_export(cfg, record, of_a_run=checkpoint.suffix != ".pth")
    generator = instantiate(record.generator, _convert_="all")
    facts = facts_of(checkpoint) if checkpoint.is_file() else None  # `load_weights` says that there is none
    load_weights(generator, checkpoint, weights=cfg.weights or validated_weights(record))
    stride = getattr(generator, "stride", None) or instantiate(record.transform, _convert_="all").sizing.multiple
    settle_size(cfg, record, stride=stride)
    data = instantiate(record.data, _convert_="all")
    validation = data.inputs(cfg.images_from) if cfg.images_from else data.dataset("val")
    images = inputs_of(validation, cfg.images)
    # 8 bits are fitted to images that they are not judged by, if the run has such.
    fitted = cfg.backend.get("precision") in ("int8", "fp8") and checkpoint.suffix != ".pth"
    sizing = instantiate(record.transform, _convert_="all").sizing
    trained = images.input_NCHW.shape[2:]
    sizes = dynamic_sizes(cfg, stride=stride, trained=[*trained]) if cfg.size == "dynamic" else None
    manifest = export(
        generator,
        images.input_NCHW,
        Path(cfg.output),
        backend=instantiate(cfg.backend, _convert_="all"),
        norm_stats=resolve_norm_stats(cfg.norm_stats or record.norm_stats, batch_size=record.batch_size),
        direction=record.data.direction,
        readings=readings_of(record.data),
        preprocess=record.transform.preprocess,
        multiple=sizing.multiple,
        image_size=sizing.size,
        stride=stride,
        sizes=sizes,
        checkpoint=checkpoint,
        checkpoint_facts=facts,
        device=pick_device(cfg.device),
        names=images.names,
        example_NCHW=inputs_of(data.dataset("train", augment=False), cfg.images).input_NCHW if fitted else None,
        frames=cfg.frames,
        min_psnr=cfg.min_psnr,
        cache_dir=Path(cfg.cache_dir).expanduser() if cfg.cache_dir else None,
    )
    program, psnr = manifest.program, manifest.psnr_db
    if program.considered:
        show_considered(program.considered, batch_size=program.max_batch)
    size = f" batches of {program.max_batch}," if program.max_batch == program.min_batch else ""
    size += f" images of {program.sizes} pixels," if program.sizes else ""
    precision = (program.precision or program.dtype) + (" on frames" if program.dtype == "uint8" else "")
    print(
        f"{cfg.output}: {program.backend}, {precision},{size} norm_stats={manifest.norm_stats},"
        f" PSNR {psnr['mean']:.1f} dB against fp32 over {counted(int(psnr['images']), 'image')}"
        f" (worst {psnr['worst']:.1f} dB)"
    )
    if cfg.triton_repository is not None:
        *_, served = triton_repository.write(Path(cfg.output), Path(cfg.triton_repository), cfg.name)
        print(f"{served}: the same for tritonserver --model-repository={shlex.quote(str(served.parent))}")
    where = (
        ({"size": "input"} if program.sizes else {})
        | run_settings(run_dir)
        | ({} if Path(cfg.output) == run_dir / "export" else {"export": cfg.output})
    )
    if checkpoint.suffix == ".pth":
        where["input"] = "your/images"
    batch_size = program.max_batch if program.max_batch == program.min_batch else min(program.max_batch or 8, 8)
    print(f"next: {command_line('infer', pipeline='overlap', batch_size=batch_size, **where)}")
    return Exported(Path(cfg.output), backend=program.backend, score=float(psnr["worst"]))
