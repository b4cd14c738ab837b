"""Train and validation loaders over folders of pairs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from lightning import LightningDataModule
from lightning.fabric.utilities import rank_zero_only
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, RandomSampler, Sampler

from p2p.batch import Batch
from p2p.data.cache import Cache, PairCache, TooDeep, choose
from p2p.data.dataset import PairDataset
from p2p.data.decoded_batches import DecodedBatches
from p2p.data.decoder import Decode, gpu_decoder
from p2p.data.epoch_loader import EpochLoader
from p2p.data.gpu_batches import Augmentation, GpuBatches
from p2p.data.kept import KeptBatches, can_be_kept
from p2p.data.mirror import local
from p2p.data.pages import Pages, check_pages
from p2p.data.pairs import Direction, Pair, PairLayout, check_direction, check_layout, find_inputs
from p2p.data.reading import DROPPED, Range, readings
from p2p.data.shared_memory import workers_that_fit
from p2p.data.splits import find_split
from p2p.data.transforms.transform import Transform
from p2p.system.lock import turn_to_make
from p2p.system.plural import counted
from p2p.system.urls import is_url

MAX_WORKERS = 8
TOGETHER = 1 << 20  # pixels that are validated together: 16 images of 256x256
# Of whole numbers: the smallest and the largest. Each worker is a process of half a gigabyte.
RANGES = {"workers": (0, 256), "input_channels": (1, 4096), "target_channels": (1, 4096)}


class PairedImages(LightningDataModule):
    """Image pairs below `root`, in one folder for each split.

    Args:
        root: the folder of the data set, or a URL of it, see `p2p.data.mirror`.
        transform: turns frames into tensors.
        batch_size: images per training batch. Validation takes more at a time if all have one size: its scores are of
            single images, and no norm sees two of them.
        direction: "AtoB" or "BtoA".
        input_channels, target_channels: 3 for RGB, 1 for grey, of .npy files any number.
        range, target_range: the numbers in inputs' and targets' files that are black and white, such as [0, 4095];
            "auto": those of the files' dtype; of targets None: as of inputs. Outputs go back through it.
        percentiles: what train.py puts in the place of range=percentile, in per cent of the training pairs' numbers.
        labels: how many, of inputs that hold a label for each pixel: one channel for each. None: they are pictures.
        edges: inputs are instance maps, 1000 * label + number, and one more channel has the instances' edges.
        alpha: a colour that transparent images are laid on, or "drop": they are seen as if they were opaque.
        pages: "all": each page of a TIFF file is an image; "first": the others are left out.
        train, val: names of the two splits; `p2p.data.splits.find_split` says where they can be.
        layout: "side_by_side" or "two_folders"; None: what is there, if its shape agrees, see `p2p.data.pairs`.
        source: makes the folder `root` where it is missing, such as `p2p.data.download.fetch_archive`; None: never.
        workers: loader processes; None means none on a CPU, where the networks need every core and decoding
            takes a hundredth of a step, and up to 8 beside a GPU. Where the GPU decodes, threads that read.
        cache: where the training pairs are kept, resized but not yet cropped: "gpu", "ram", or "none", which reads
            them anew in every epoch; "auto" is "gpu" if a quarter of the GPU's free memory holds them, else "none".
            The batches are the same.
        decode: what decodes training pairs that are not kept: "cpu", "gpu", or "auto", the GPU where it has JPEG
            engines and most pairs are files for them, see `p2p.data.decoder`.
        augmentation: what crops and flips on the GPU, see `p2p.data.gpu_batches`.

    Raises:
        ValueError: an argument is not known, or out of range.
    """

    def __init__(
        self,
        *,
        root: str,
        transform: Transform,
        batch_size: int = 1,
        direction: Direction = "AtoB",
        input_channels: int = 3,
        target_channels: int = 3,
        range: Range = "auto",
        target_range: Range | None = None,
        percentiles: list[float] | None = None,
        labels: int | None = None,
        edges: bool = False,
        alpha: str = DROPPED,
        pages: Pages = "first",
        train: str = "train",
        val: str = "val",
        layout: PairLayout | None = None,
        source: Callable[[Path], None] | None = None,
        workers: int | None = None,
        cache: Cache = "auto",
        decode: Decode = "auto",
        augmentation: Augmentation = "auto",
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is too small: use 1 or more")
        if not root:
            raise ValueError("data.root has no value: point it at a folder of image pairs")
        for key, value in (("train", train), ("val", val)):
            if not value:
                raise ValueError(f"data.{key} has no value: name the folder of {root} that holds the {key} pairs")
        numbers = {"workers": workers, "input_channels": input_channels, "target_channels": target_channels}
        for key, (least, most) in RANGES.items():
            if numbers[key] is not None and not least <= numbers[key] <= most:
                raise ValueError(f"data.{key}={numbers[key]} is out of range: use {least} to {most}")
        names = {"cache": (cache, Cache), "decode": (decode, Decode), "augmentation": (augmentation, Augmentation)}
        for key, (value, known) in names.items():
            if value not in get_args(known):
                raise ValueError(f"data.{key}={value} is not known: use one of {', '.join(get_args(known))}")
        check_direction(direction, key="data.direction")
        check_layout(layout, key="data.layout")
        check_pages(pages, key="data.pages")
        self._input, self._target = readings(
            input_channels=input_channels,
            target_channels=target_channels,
            range=range,
            target_range=target_range,
            labels=labels,
            edges=edges,
            alpha=alpha,
        )
        self._pages: Pages = pages
        self.root = Path(root)
        self._url = root if is_url(root) else None  # until it is copied to `root`
        self._layout = layout
        self._found: dict[str, list[Pair]] = {}
        self._validation: KeptBatches | DataLoader | None = None
        self._source = source
        self._transform = transform
        self._direction = direction
        self._splits = {"train": train, "val": val}
        self._cache = cache
        self._decode = decode
        self._augmentation = augmentation
        if workers is None:
            workers = min(MAX_WORKERS, os.cpu_count() - 1) if torch.cuda.is_available() else 0
        self._workers = workers
        self._loader = {
            "batch_size": batch_size,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": Batch.collate,
        }

    def prepare_data(self) -> None:
        """Fetch the data set if it has a source or is at a URL, and is not here.

        Lightning calls this in one process a machine.

        Raises:
            ValueError: it cannot be had, and why.
        """
        if self._url is not None:
            self.root, self._url = local(self._url), None
        if self._source is not None and not self.root.is_dir():
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with turn_to_make(self.root):
                if not self.root.is_dir():  # another process may have been first
                    self._source(self.root)

    def setup(self, stage: str) -> None:
        """Find all pairs before the first step. Lightning calls this in every process, when they are there.

        Raises:
            ValueError: see `dataset`.
        """
        for split in self._splits:
            self.dataset(split)

    def dataset(self, split: str, *, augment: bool = True) -> PairDataset:
        """The pairs of "train", augmented unless that is False, or of "val", as they are; fetched if need be.

        Raises:
            ValueError: the folder is missing or empty, or what is in it are no pairs.
        """
        self.prepare_data()  # for callers without a Trainer, such as export.py
        if split not in self._found:
            name, key = self._splits[split], f"data.{split}"
            found = find_split(
                self.root, name, key=key, direction=self._direction, layout=self._layout, pages=self._pages
            )
            self._found[split], said = found
            if said is not None:
                rank_zero_only(print)(said)
        pairs = self._found[split]
        return self._pairs(pairs, augment=augment and split == "train")

    def inputs(self, source: str) -> PairDataset:
        """Other images as inputs without targets, resized and nothing else: see `p2p.data.pairs.find_inputs`."""
        return self._pairs(find_inputs(source, direction=self._direction, pages=self._pages), augment=False)

    def _pairs(self, pairs: list[Pair], *, augment: bool) -> PairDataset:
        return PairDataset(pairs, self._transform, augment=augment, input=self._input, target=self._target)

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented batches; a last one that is not full is kept.

        Raises:
            ValueError: the pairs cannot be cached as asked for.
        """
        dataset = self.dataset("train")
        self._keep(dataset)
        sampler = RandomSampler(dataset, generator=torch.Generator())
        options = self._loader | self._processes(dataset, self._loader["batch_size"])
        if options["num_workers"]:
            dataset.epoch_seed.share_memory_()
        return EpochLoader(dataset, sampler=sampler, generator=torch.Generator(), **options)

    def _processes(self, dataset: PairDataset, batch_size: int) -> dict[str, int | bool]:
        """The loader's processes, as many as there is shared memory for."""
        if dataset.batches_on_gpu is not None or not self._workers:
            return {"num_workers": 0}
        workers = workers_that_fit(
            self._workers,
            batch_bytes=batch_size * bytes_of_pair(dataset),
            processes=1 if self.trainer is None else self.trainer.num_devices,
        )
        return {"num_workers": workers, "persistent_workers": workers > 0}

    def _keep(self, dataset: PairDataset) -> None:
        """Fill the cache, if there is to be one; else have the GPU decode, if it is to."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        place = choose(self._cache, device=device, load=dataset.load, count=len(dataset))
        if place != "none" and self._decode == "gpu":
            raise ValueError("data.decode=gpu needs pairs that are not kept in memory: add data.cache=none")
        decoder = gpu_decoder(dataset, decode=self._decode, device=device) if place == "none" else None
        if place != "gpu" and decoder is None and self._augmentation == "cvcuda":
            raise ValueError(
                "data.augmentation=cvcuda needs pairs that are kept on a GPU, or decoded there: add data.cache=gpu"
            )
        if decoder is not None:
            dataset.batches_on_gpu = DecodedBatches(
                dataset,
                decoder=decoder,
                device=device,
                augmentation=self._augmentation,
                threads=max(1, self._workers),
            )
        if place == "none":
            return
        started = time.perf_counter()
        try:
            cache = PairCache(dataset.load, count=len(dataset), device=device if place == "gpu" else "cpu")
        except TooDeep:
            if self._cache != "auto":
                raise
            return  # of pairs whose first one has 8 bits a channel
        where = "in memory"
        if place == "ram":
            dataset.cache = cache
        else:
            dataset.batches_on_gpu = GpuBatches(
                cache,
                names=dataset.names,
                view=lambda index: dataset.view(index, *cache.pair(index)[0].shape[:2]),
                device=device,
                augmentation=self._augmentation,
            )
            where = f"on the GPU, augmented by {dataset.batches_on_gpu.augmented_by}"
        seconds = time.perf_counter() - started
        rank_zero_only(print)(
            f"{counted(len(cache), 'pair is', 'pairs are')} kept {where}: {cache.bytes / 1e9:.2f} GB,"
            f" read in {seconds:.1f} s"
        )

    def val_dataloader(self) -> KeptBatches | DataLoader:
        """The validation pairs in order of name, resized and nothing else; of n processes each takes every n-th.

        They are kept in memory from one validation to the next where there is room, else read each time. The batches
        are the same.

        Raises:
            ValueError: there are more processes than pairs.
        """
        if self._validation is not None:
            return self._validation
        dataset = self.dataset("val")
        sampler = self._share(dataset)
        indices = range(len(dataset)) if sampler is None else [*sampler]
        batch_size = self._validated_together(len(indices))
        if can_be_kept(len(indices) * bytes_of_pair(dataset)):
            pin_memory = self._loader["pin_memory"]
            self._validation = KeptBatches(dataset, indices, batch_size=batch_size, pin_memory=pin_memory)
        else:
            # With a generator of its own, which is never used, it leaves the global one alone.
            options = self._loader | {"batch_size": batch_size} | self._processes(dataset, batch_size)
            self._validation = DataLoader(dataset, sampler=sampler, generator=torch.Generator(), **options)
        return self._validation

    def _validated_together(self, count: int) -> int:
        """Images in a batch of validation, in all of its batches about as many: each size makes cuDNN try kernels."""
        sizing = self._transform.sizing
        if not sizing.crops:  # each has a size of its own
            return self._loader["batch_size"]
        most = max(self._loader["batch_size"], TOGETHER // math.prod(sizing.sides))
        return math.ceil(count / math.ceil(count / most))

    def _share(self, dataset: PairDataset) -> Sampler | None:
        """Lightning's own choice would repeat pairs until all processes have equally many, and score them twice."""
        if self.trainer is None or self.trainer.world_size == 1:
            return None
        processes = self.trainer.world_size
        if len(dataset) < processes:
            raise ValueError(
                f"{counted(len(dataset), 'validation pair is', 'validation pairs are')} too few for {processes}"
                f" processes, each of which needs one: use trainer.devices={len(dataset)}, or add pairs"
            )
        return UnrepeatedDistributedSampler(
            dataset, num_replicas=processes, rank=self.trainer.global_rank, shuffle=False
        )


def bytes_of_pair(dataset: PairDataset) -> int:
    """Of the tensors of the first one."""
    with torch.random.fork_rng(devices=[]):  # to look at a pair draws its crop
        first = dataset[0]
    return first.input_NCHW.nbytes + first.target_NCHW.nbytes
