"""The folders that Triton Inference Server reads: by its own schema, by ONNX Runtime, and by what is replaced."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import p2p
from p2p.batch import from_frames, to_frames
from p2p.commands.export import check_served
from p2p.deploy import triton_repository
from p2p.deploy.backends import onnx, torch_tensorrt
from p2p.deploy.export import export
from p2p.deploy.manifest import Manifest, Program
from p2p.deploy.sizes import Sizes
from p2p.system.digest import sha256
from tests.deploy import fake_tensorrt

NO_ONNX = onnx.unavailable()
UINT8 = 2  # of its enum DataType
FRAMES = torch.arange(3 * 2 * 2 * 3, dtype=torch.uint8).mul(7).view(3, 2, 2, 3)


def artifact(folder, backend="onnx", file="generator.onnx", contents=b"a file", **fields):
    """One whose program is not looked into."""
    folder.mkdir()
    (folder / file).write_bytes(contents)
    shapes = {"input_shape": [3, 2, 2], "output_shape": [3, 2, 2]}
    Manifest(
        program=Program(backend, file, "uint8", versions={}, precision="fp16", **{"max_batch": 4, **fields}),
        program_sha256=sha256(folder / file),
        **shapes,
        norm_stats="instance",
        direction="AtoB",
        preprocess="none",
        multiple=2,
        image_size=2,
        checkpoint='é"\n.ckpt',
        checkpoint_sha256="0" * 64,
        psnr_db={},
    ).save(folder)
    return folder


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Models around an engine that negates."""
    pytest.importorskip("onnx")  # writes those that convert pixels
    fake_tensorrt.install(monkeypatch, "tensorrt")
    triton_repository.tensorrt_runtime.runtime.cache_clear()
    yield triton_repository.models_of(artifact(tmp_path / "engine", "torch_tensorrt", "generator.engine", b"1 4"), "m")
    triton_repository.tensorrt_runtime.runtime.cache_clear()


def parsed(config):
    """By the schema of the server itself."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs the extra triton")
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse(config, schema.ModelConfig())


@pytest.mark.skipif(NO_ONNX is not None, reason=str(NO_ONNX))
def test_the_file_of_a_model_gives_the_bytes_of_p2p_load(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Tanh()).eval()
    facts = {"norm_stats": "instance", "direction": "AtoB", "device": torch.device("cpu")}
    (tmp_path / "x.ckpt").write_bytes(b"")
    export(
        network,
        from_frames(torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)),
        tmp_path / "export",
        backend=onnx.export,
        checkpoint=tmp_path / "x.ckpt",
        frames=True,
        preprocess="none",
        stride=1,
        **facts,
    )
    [folder] = triton_repository.write(tmp_path / "export", tmp_path / "models", "mine")
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    translate = p2p.load(tmp_path / "export")
    for count in (1, 3):
        frames = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        [outputs] = session.run(["output_NHWC"], {"input_NHWC": frames})
        assert outputs.dtype == np.uint8
        assert np.array_equal(outputs, np.stack([np.asarray(translate(frame)) for frame in frames]))


def test_the_config_of_an_onnx_file(tmp_path):
    models = triton_repository.models_of(artifact(tmp_path / "export", max_batch=None), "mine")
    config = parsed(models["mine"].config)
    assert (config.name, config.platform, config.max_batch_size) == ("mine", "onnxruntime_onnx", 32)
    for tensor, name in ((config.input[0], "input_NHWC"), (config.output[0], "output_NHWC")):
        assert (tensor.name, tensor.data_type, [*tensor.dims]) == (name, UINT8, [2, 2, 3])
    assert [*config.dynamic_batching.preferred_batch_size] == [4, 8, 16, 32]
    assert [warm.batch_size for warm in config.model_warmup] == [1, 32]
    said = json.loads(config.parameters["p2p"].string_value)
    assert said["checkpoint"] == 'é"\n.ckpt' and said["direction"] == "AtoB"


@pytest.mark.parametrize("max_batch", [1, 4, 6])
def test_batches_are_those_of_the_program(tmp_path, max_batch):
    models = triton_repository.models_of(artifact(tmp_path / "export", max_batch=max_batch), "m")
    config = parsed(models["m"].config)
    assert config.max_batch_size == max_batch
    preferred = [*config.dynamic_batching.preferred_batch_size]
    assert preferred == {1: [], 4: [4], 6: [4, 6]}[max_batch]


def test_a_program_of_any_size(tmp_path):
    sizes = Sizes([2, 2], [2, 2], [64, 64], 2)
    models = triton_repository.models_of(artifact(tmp_path / "export", sizes=sizes), "m")
    config = parsed(models["m"].config)
    assert [*config.input[0].dims] == [*config.output[0].dims] == [-1, -1, 3]
    assert [*config.model_warmup[0].inputs["input_NHWC"].dims] == [2, 2, 3]


def test_an_engine_stands_between_two_conversions(engine):
    configs = {name: parsed(model.config) for name, model in engine.items()}
    *parts, whole = configs
    assert (parts, whole) == (["m_to_images", "m_engine", "m_to_frames"], "m")
    steps = configs["m"].ensemble_scheduling.step
    assert [step.model_name for step in steps] == parts
    for step in steps:  # each connects the tensors that its model has
        model = configs[step.model_name]
        assert [*step.input_map] == [model.input[0].name] and [*step.output_map] == [model.output[0].name]
    for one, other in pairwise(steps):
        assert [*one.output_map.values()] == [*other.input_map.values()]
        given, taken = configs[one.model_name].output[0], configs[other.model_name].input[0]
        assert (given.data_type, [*given.dims]) == (taken.data_type, [*taken.dims])
    assert len({tensor for step in steps for tensor in step.output_map.values()}) == 3
    assert [*steps[0].input_map.values()] == [configs["m"].input[0].name]
    assert [*steps[-1].output_map.values()] == [configs["m"].output[0].name]
    assert configs["m_engine"].input[0].name == "x" and engine["m_engine"].contents == b"1 4"


@pytest.mark.skipif(NO_ONNX is not None, reason=str(NO_ONNX))
def test_the_three_together_are_what_p2p_computes(engine):
    import onnxruntime

    def run(name, **inputs):
        return onnxruntime.InferenceSession(engine[name].contents).run(None, inputs)[0]

    images = run("m_to_images", frames_NHWC=FRAMES.numpy())
    assert np.array_equal(images, from_frames(FRAMES).half().numpy())
    beyond = torch.linspace(-1.1, 1.1, 3 * 3 * 50 * 2).view(3, 3, 50, 2).half()
    assert np.array_equal(run("m_to_frames", images_NCHW=beyond.numpy()), to_frames(beyond).numpy())


def test_a_new_program_replaces_the_old_one_and_nothing_else(tmp_path):
    models = tmp_path / "models"
    (models / "other").mkdir(parents=True)
    (models / "other" / "config.pbtxt").write_text("of the user")
    for index, contents in enumerate((b"first", b"second")):
        [folder] = triton_repository.write(artifact(tmp_path / f"export{index}", contents=contents), models, "mine")
    assert (folder / "1" / "model.onnx").read_bytes() == b"second"
    assert (models / "other" / "config.pbtxt").read_text() == "of the user"
    assert sorted(path.name for path in models.iterdir()) == ["mine", "other"]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / "config.pbtxt").write_text("# tuned"), "config.pbtxt"),
        (lambda folder: (folder / "2").mkdir(), "2"),
        (lambda folder: (folder / "labels.txt").write_text("sky"), "labels.txt"),
        (lambda folder: (folder / "p2p.json").write_text("[1]"), "1/model.onnx"),
    ],
)
def test_what_p2p_did_not_write_is_never_replaced(tmp_path, spoil, named):
    exported = artifact(tmp_path / "export")
    [folder] = triton_repository.write(exported, tmp_path / "models", "mine")
    spoil(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"models/mine of triton_repository= holds {named}, which p2p did not write"):
        triton_repository.write(exported, tmp_path / "models", "mine")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def asked(tmp_path, *words):
    return p2p.compose([f"triton_repository={tmp_path / 'models'}", *words], command="export")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "add backend=onnx frames=true, or backend=torch_tensorrt frames=true on a GPU"),
        ("backend=torch_tensorrt", "add backend=torch_tensorrt frames=true$"),
        ("backend=onnx frames=true backend.min_batch=4", "backend.min_batch=4 does not suit triton_repository="),
        ("backend=onnx frames=true name=a/b", "name=a/b cannot be a model's name"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_work(tmp_path, words, said):
    with pytest.raises(ValueError, match=said):
        check_served(asked(tmp_path, *words.split()))


def test_an_engine_of_the_other_flavour_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_tensorrt, "flavour", lambda: "tensorrt_rtx")
    with pytest.raises(ValueError, match=r"does not load: use backend=onnx frames=true"):
        check_served(asked(tmp_path, "backend=torch_tensorrt", "frames=true"))


def test_a_repository_inside_of_the_export_is_refused(tmp_path):
    cfg = asked(tmp_path, "backend=onnx", "frames=true", f"output={tmp_path}")
    with pytest.raises(ValueError, match="which an export replaces"):
        check_served(cfg)
    OmegaConf.update(cfg, "output", str(tmp_path / "export"))
    check_served(cfg)
