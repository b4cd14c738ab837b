"""Run what torch.export has saved, one operator of ATen after another, as the module that it was made of does.

`torch.export.load` would do it, and takes as long as torch itself: it imports torch._dynamo, Inductor and SymPy, with
which programs are made. To run one takes the graph, which is JSON, and the weights, which are bytes.
"""

from __future__ import annotations

import json
import operator
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from p2p.deploy.archive import FOREIGN, check_archive
from p2p.deploy.backend import Run
from p2p.deploy.signature import Signature
from p2p.deploy.sizes import Sizes

# Numbers of torch._export.serde.schema, by the names that they have in torch.
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"}
DTYPES |= {12: "bool", 13: "bfloat16"}
MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 4: "preserve_format"}


class Ref(NamedTuple):
    """What has this name while the graph runs."""

    name: str


class Step(NamedTuple):
    """One operator.

    Attributes:
        operator: of ATen, called by name, or of Python's `operator`.
        arguments: by name: values, `Ref`s, and lists of both.
        outputs: names of what it gives.
        one: whether it gives that one, and not a sequence.
        last_used: names of what nothing needs after it, so that its memory is free again.
    """

    operator: Callable
    arguments: dict[str, object]
    outputs: list[str]
    one: bool
    last_used: set[str]


def load(path: Path, *, device: torch.device, channels_last: bool = False) -> tuple[Run, Signature]:
    """The graph of a .pt2, of one input and one output, as a function that trusts its input; and what it takes.

    Args:
        path: the file, of which nothing is run but operators of ATen.
        device: where it runs, also what was traced on another.
        channels_last: bring the weights of convolutions to the memory order of NHWC.

    Raises:
        ValueError: the file is damaged, or holds what could run, see `p2p.deploy.archive`.
    """
    check_archive(path)
    reader = torch._C.PyTorchFileReader(str(path))
    try:
        model = json.loads(reader.get_record("models/model.json"))
        tensors = _tensors(path, reader, "weights") | _tensors(path, reader, "constants")
        graph, specs = model["graph_module"]["graph"], model["graph_module"]["signature"]["input_specs"]
        weights = {}
        for [(kind, spec)] in map(dict.items, specs):
            if kind == "user_input":
                image = spec["arg"]["as_tensor"]["name"]
            else:
                weights[spec["arg"]["name"]] = tensors[spec[f"{kind}_name"]]
        signature = _signature(graph["tensor_values"][image], model["range_constraints"])
        output = graph["outputs"][0]["as_tensor"]["name"]
        steps = _steps(graph["nodes"], device, kept={output, *weights})
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a program of torch.export, or is damaged: export again") from error
    weights = {name: _placed(tensor, device, channels_last) for name, tensor in weights.items()}

    def run(images: torch.Tensor) -> torch.Tensor:
        values = {**weights, image: images}
        for step in steps:
            arguments = {name: _value(argument, values) for name, argument in step.arguments.items()}
            # Those of `operator` take no names.
            named = step.operator.__module__ != "_operator"
            given = step.operator(**arguments) if named else step.operator(*arguments.values())
            values.update(zip(step.outputs, [given] if step.one else given or (), strict=True))
            for name in step.last_used:
                del values[name]
        return values[output]

    return run, signature


def _tensors(path: Path, reader: torch._C.PyTorchFileReader, folder: str) -> dict[str, torch.Tensor]:
    """Those of data/weights or data/constants, by name, on the CPU."""
    found, files = {}, {}
    with zipfile.ZipFile(path) as archive:  # the reader of torch 2.11 tells no sizes
        bytes_of = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
    for name, entry in json.loads(reader.get_record(f"data/{folder}/model_{folder}_config.json"))["config"].items():
        meta, file = entry["tensor_meta"], entry["path_name"]
        if entry["use_pickle"]:
            raise ValueError(f"{path} holds a pickled object, {FOREIGN}")
        if file not in files:
            record = f"data/{folder}/{file}"
            storage = reader.get_storage_from_record(record, bytes_of[record], torch.uint8).untyped_storage()
            files[file] = torch.empty(0, dtype=torch.uint8).set_(storage)
        sizes, strides = ([side["as_int"] for side in meta[key]] for key in ("sizes", "strides"))
        values = files[file].view(getattr(torch, DTYPES[meta["dtype"]]))
        found[name] = values.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
    return found


def _placed(tensor: torch.Tensor, device: torch.device, channels_last: bool) -> torch.Tensor:
    tensor = tensor.to(device)
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last and tensor.dim() == 4 else tensor


def _signature(meta: dict, ranges: dict) -> Signature:
    """Of the input's description."""
    dtype = DTYPES[meta["dtype"]]
    count, *image = meta["sizes"]
    _, least, most = _range(count, ranges)
    rows = 0 if dtype == "uint8" else 1
    strides, lows, highs = zip(*(_range(side, ranges) for side in image[rows : rows + 2]), strict=True)
    sizes = None if lows == highs else Sizes([*lows], [*lows], [*highs], strides[0])
    for place, low in enumerate(lows, start=rows):
        image[place] = image[place] if sizes is None else {"as_int": low}
    return Signature(least, most, tuple(side["as_int"] for side in image), dtype, sizes)


def _range(side: dict, ranges: dict) -> tuple[int, int, int | None]:
    """Of a side of the input: what it is a multiple of, its least and its most."""
    if "as_int" in side:
        return side["as_int"], side["as_int"], side["as_int"]
    expression = side["as_expr"]["expr_str"]  # "Symbol('s21', positive=True)", "Mul(Integer(32), Symbol('s39'))"
    symbol, factor = re.search(r"s\d+", expression)[0], re.search(r"Integer\((\d+)\)", expression)
    limits = ranges[f"{factor[1]}*{symbol}" if factor else symbol]
    return int(factor[1]) if factor else 1, limits["min_val"], limits["max_val"]


def _steps(nodes: list[dict], device: torch.device, *, kept: set[str]) -> list[Step]:
    """The operators in order; `kept` are names of what stays."""
    steps, needed = [], set(kept)
    for node in reversed(nodes):
        arguments = {each["name"]: _argument(each["arg"], device) for each in node["inputs"]}
        outputs = [_argument(each, device) for each in node["outputs"]]
        one = len(outputs) == 1 and isinstance(outputs[0], Ref)
        names = [ref.name for each in outputs for ref in _refs(each)]
        used = {ref.name for each in arguments.values() for ref in _refs(each)}
        steps.append(Step(_operator(node["target"]), arguments, names, one, {*used, *names} - needed))
        needed |= used | {*names}
    return steps[::-1]


def _operator(target: str) -> Callable:
    """Of what `p2p.deploy.archive` lets pass: "_operator.mul", "torch.ops.aten.cat.default"."""
    *_, packet, name = target.split(".")
    return getattr(operator if packet == "_operator" else getattr(torch.ops.aten, packet), name)


def _argument(argument: dict, device: torch.device) -> object:
    """A value, a `Ref`, or a list of them, of what the schema calls an argument."""
    [(kind, value)] = argument.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return Ref(value["name"])
        case "as_tensors":
            return [Ref(each["name"]) for each in value]
        case "as_optional_tensors":
            return [_argument(each, device) for each in value]
        case "as_sym_int":
            return Ref(value["as_name"]) if "as_name" in value else value["as_int"]
        case "as_sym_ints":
            return [_argument({"as_sym_int": each}, device) for each in value]
        case "as_scalar_type":
            return getattr(torch, DTYPES[value])
        case "as_memory_format":
            return getattr(torch, MEMORY_FORMATS[value])
        case "as_layout":
            return torch.strided
        case "as_device":
            return device
        case "as_int" | "as_ints" | "as_float" | "as_floats" | "as_bool" | "as_bools" | "as_string":
            return value
    raise KeyError(kind)


def _refs(argument: object) -> list[Ref]:
    return [each for each in (argument if isinstance(argument, list) else [argument]) if isinstance(each, Ref)]


def _value(argument: object, values: dict[str, object]) -> object:
    if isinstance(argument, list):
        return [_value(each, values) for each in argument]
    return values[argument.name] if isinstance(argument, Ref) else argument
