"""Code inside an artifact or a run of someone else's: it does not run."""

import contextlib
import io
import json
import pickle
import re
import zipfile

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.export.pt2_archive import constants

from p2p.deploy.backends import exported_program
from p2p.deploy.backends.exported_program import export, load
from p2p.deploy.engine import load_program
from p2p.deploy.manifest import Program
from p2p.run.record import load_record
from p2p.run.trust import allowed, targets
from p2p.system.quiet import quiet

CPU = torch.device("cpu")
PROGRAM = Program("exported_program", "generator.pt2", "float32", None, {})
INPUTS = ((torch.zeros(2, 3, 8, 8),), {})


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    export(Network().eval(), torch.zeros(1, 3, 8, 8), folder)
    return folder / "generator.pt2"


class Network(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 3)

    def forward(self, image):
        return super().forward(image)


class Evil:
    """An object whose unpickling makes a file, and gives what was there before."""

    def __init__(self, marker, value):
        self.call = f"(open({str(marker)!r}, 'w'), value)[1]"
        self.value = value

    def __reduce__(self):
        return eval, (self.call, {"value": self.value})


def pickled(thing, save=torch.save):
    buffer = io.BytesIO()
    save(thing, buffer)
    return buffer.getvalue()


def graph(members, change):
    """Change the JSON of the graph, by a function."""
    record = json.loads(members["archive/models/model.json"])
    change(record, record["graph_module"]["graph"])
    members["archive/models/model.json"] = json.dumps(record).encode()


def sample_inputs(members, marker):
    members["archive/data/sample_inputs/model.pt"] = pickled(Evil(marker, INPUTS))


def pickled_weight(members, marker):
    name = "archive/data/weights/model_weights_config.json"
    record = json.loads(members[name])
    record["config"]["weight"]["use_pickle"] = True
    members[name] = json.dumps(record).encode()
    weight = torch.zeros(3, 3, 3, 3)
    members["archive/data/weights/weight_0"] = pickled(Evil(marker, weight))


def opaque_constant(members, marker):
    config = {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    members["archive/data/constants/model_constants_config.json"] = json.dumps({"config": config}).encode()
    members["archive/data/constants/opaque_obj_0"] = pickled(Evil(marker, 0), pickle.dump)


def shared_library(members, marker):
    members["archive/data/aotinductor/model/model.so"] = b"\x7fELF"


def expression(members, marker):
    text, evil = members["archive/models/model.json"].decode(), json.dumps(f"open({str(marker)!r}, 'w')")
    members["archive/models/model.json"] = re.sub(r'("expr_str": *)"[^"]*"', rf"\1{evil}", text).encode()


def guard(members, marker):
    text = f"open({str(marker)!r}, 'w') is not None"
    graph(members, lambda record, g: record.update(guards_code=[text]))


def operator(members, marker):
    def change(record, g):
        arguments = [{"name": "x", "arg": {"as_string": f"touch {marker}"}, "kind": 1}]
        g["nodes"][0] |= {"target": "torch.os.system", "inputs": arguments}

    graph(members, change)


def name(members, marker):
    """Of the input, which becomes Python code: `def forward(self, image=open(...))`."""
    text = members["archive/models/model.json"].decode()
    evil = f"image=open('{marker}','w')"
    members["archive/models/model.json"] = text.replace('"image"', f'"{evil}"').encode()


def tree(members, marker):
    """Of the outputs: its type may name any module, which is then imported."""
    (marker.parent / "evil_module.py").write_text(f"open({str(marker)!r}, 'w')\nmake = dict")
    context = {"default_factory_module": "evil_module", "default_factory_name": "make", "dict_context": []}
    spec = json.dumps([1, {"type": "collections.defaultdict", "context": context, "children_spec": []}])
    graph(members, lambda record, g: record["graph_module"]["module_call_graph"][0]["signature"].update(out_spec=spec))


def early_version(members, marker):
    """A second file system inside: names as torch 2.7 wrote them."""
    members["version"] = b"8.0"
    members["serialized_example_inputs.pt"] = pickled(Evil(marker, INPUTS))


RUN = [sample_inputs, pickled_weight, opaque_constant, expression, guard, name, tree]  # in torch 2.14
WAYS = [*RUN, shared_library, operator, early_version]


def changed(program, way, folder):
    """A program with code in it, and the file that shows that it has run."""
    with zipfile.ZipFile(program) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    before, marker, path = dict(members), folder / "RAN", folder / "generator.pt2"
    way(members, marker)
    assert members != before
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return path, marker


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_code_in_a_program_does_not_run(way, program, tmp_path, monkeypatch):
    path, marker = changed(program, way, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if way in (guard, sample_inputs):  # of which the program has no need
        assert load(PROGRAM, path.parent, device=CPU)(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 6, 6)
    else:
        with pytest.raises(ValueError, match=rf"^{path} [^\n]* could run code: do not use it$"):
            load_program(exported_program, PROGRAM, path.parent, device=CPU)
    assert not marker.exists()


@pytest.mark.parametrize("way", RUN, ids=lambda way: way.__name__)
def test_torch_alone_runs_it(way, program, tmp_path, monkeypatch):
    """Else the test above would show nothing."""
    if way is opaque_constant and not hasattr(constants, "OPAQUE_OBJ_FILENAME_PREFIX"):
        pytest.skip("early versions of torch have no such constants")
    path, marker = changed(program, way, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with contextlib.suppress(Exception), quiet():  # later, of what the program then lacks
        torch.export.load(path).module()(torch.zeros(1, 3, 8, 8))
    assert marker.exists()


RECORD = """
epochs: 3
image_size: 32
generator: {_target_: p2p.models.unet.UNet, image_size: "${image_size}", layers: [1, 2]}
data: {_target_: p2p.data.datamodule.PairedImages, transform: {_target_: p2p.data.transforms.torchvision.Torchvision},
       source: {_target_: p2p.data.download.fetch_archive, _partial_: true}}
model: {_target_: p2p.training.pix2pix.Pix2Pix, optimizer: {_target_: torch.optim.SGD, _partial_: true}}
scheduler: {_target_: torch.optim.lr_scheduler.ExponentialLR, _partial_: true}
callbacks: {mine: {_target_: lightning.pytorch.callbacks.Timer}}
norm_stats: instance
"""
EVIL = {
    "generator._target_": [
        "os.system",
        "builtins.eval",
        "torch.load",
        "subprocess.run",
        "p2p.system.atomic.write",
        "a b",
        "",
    ],
    "generator.block": [{"_target_": "torch.hub.load"}, [{"_target_": "os.system", "_partial_": True}]],
    "generator.in_channels": ["${oc.env:HOME}", "${oc.decode:x}", "${hydra:job.name}", "${auto_precision:cuda}"],
    "generator.layers": [
        [[{"x": {"_target_": "hydra.utils.get_method", "path": "os.system"}}]],
        ["${oc.env:A${epochs}}"],
    ],
    "data.transform._target_": ["p2p.models.unet.UNet", "hydra.utils.instantiate", ["os.system"], 3, None],
    "data._target_": ["p2p.data.download.fetch_archive.__globals__", "p2p.data.datamodule.os.system"],
    "generator.source": [{"_target_": "p2p.data.download.fetch_archive", "root": "x"}],
    "model.optimizer._target_": ["torch.nn.functional.torch.hub.load", "torch.optim.lr_scheduler.types.FunctionType"],
    "anything.at.all": [
        {"_target_": "lightning.pytorch.callbacks.os.system"},
        {"_target_": "p2p.commands.start.run_command"},
    ],
    "trainer": [{"_target_": "torch.utils.cpp_extension.load"}, {"_target_": "${generator._target_}"}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in EVIL.items() for value in values], ids=str)
def test_a_record_calls_what_p2p_knows_alone(key, value, tmp_path):
    record = OmegaConf.create(RECORD)
    path = tmp_path / "train.yaml"
    OmegaConf.save(record, path)
    load_record(path)
    OmegaConf.update(record, key, value, force_add=True)
    OmegaConf.save(record, path)
    with pytest.raises(ValueError, match=rf"^{path} has {key}[^\n]*: (if you trust it, set P2P_TRUST=|replace it by)"):
        load_record(path)


def test_a_users_own_generator_is_allowed_by_name(tmp_path, monkeypatch):
    record = OmegaConf.create(RECORD)
    record.generator._target_ = "mine.nets.Net"
    path = tmp_path / "train.yaml"
    OmegaConf.save(record, path)
    for trusted in ("mine", "other,mine.nets", "mine.nets.Net"):
        monkeypatch.setenv("P2P_TRUST", trusted)
        assert load_record(path).generator._target_ == "mine.nets.Net"
    for trusted in ("min", "mine.nets.N", "other", ""):
        monkeypatch.setenv("P2P_TRUST", trusted)
        with pytest.raises(ValueError, match=r"generator\._target_=mine\.nets\.Net, .* P2P_TRUST=\S*mine\.nets\.Net i"):
            load_record(path)


def test_all_that_is_unknown_is_asked_for_at_once(tmp_path, monkeypatch):
    record = OmegaConf.create(RECORD)
    record.generator._target_ = "mine.nets.Net"
    record.update({"discriminator": {"_target_": "mine.nets.Net"}, "losses": {"ink": {"_target_": "mine.losses.Ink"}}})
    path = tmp_path / "train.yaml"
    OmegaConf.save(record, path)
    monkeypatch.setenv("P2P_TRUST", "other")
    with pytest.raises(
        ValueError, match=r"_target_=mine\.nets\.Net, and elsewhere mine\.losses\.Ink, which are"
    ) as asked:
        load_record(path)
    name, _, value = re.search(r"set (\S+) in the environment$", str(asked.value))[1].partition("=")
    monkeypatch.setenv(name, value)
    load_record(path)
    assert value.split(",")[0] == "other"  # what was trusted stays so


def test_whatever_train_py_can_be_configured_with_can_be_resumed():
    assert {"data", "generator", "trainer", "logger"} < targets().keys()
    for group, names in targets().items():
        assert names or group in ("experiment", "reconstruction")  # which choose options of other groups
        assert all(allowed(name, [group]) for name in names)
