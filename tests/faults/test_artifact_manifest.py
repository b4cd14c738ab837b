"""A manifest that was edited, or damaged: one sentence for every field and value, and no program is run as another."""

import hashlib
import json
import math
import os
import shutil

import pytest
import torch
from torch import nn

from p2p.deploy.backends import exported_program
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export
from p2p.deploy.manifest import FILE, Manifest
from p2p.system.digest import CHUNK, sha256
from p2p.system.imports import beside

CPU = torch.device("cpu")
VALUES = [None, "", "a\nb", "../x", "x" * 5000, -1, 0, 3, 2**63, 1e300, math.nan, math.inf, True, [], [3, 8], [1, 2, 3]]
VALUES += [{}, {"a": {"b": []}}, [None] * 3, ["AtoB"], [[["x"]]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "last.ckpt").touch()
    facts = {"norm_stats": "running", "direction": "AtoB", "checkpoint": folder / "last.ckpt", "device": CPU}
    network, images = nn.Conv2d(3, 3, 3, padding=1).eval(), torch.zeros(2, 3, 8, 8)
    export(network, images, folder / "export", backend=exported_program.export, **facts)
    return folder / "export"


@pytest.fixture(scope="module")
def program(made):
    """Loaded once: its file is the same each time."""
    return exported_program.load(Manifest.load(made).program, made, device=CPU)


def outcome(folder):
    """ "works", or the sentence of a ValueError; anything else is the test's failure."""
    try:
        engine = load_engine(folder, device=CPU)
        engine.check_batch_size(1)
        out = engine(torch.zeros(1, *engine.manifest.input_shape))
        assert out.shape == (1, *engine.manifest.output_shape) == (1, 3, 8, 8)
        return "works"
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return str(error)


FIELDS = ["program", "program_sha256", "input_shape", "output_shape", "norm_stats", "direction", "preprocess"]
FIELDS += ["multiple", "image_size", "checkpoint", "checkpoint_sha256", "checkpoint_bytes", "checkpoint_mtime_ns"]
FIELDS += ["psnr_db", "built", "build_seconds", "value_range", "mean", "std", "created", "colour"]
OF_PROGRAM = ["backend", "file", "dtype", "max_batch", "versions", "gpu", "min_batch", "architecture", "driver"]
OF_PROGRAM += ["considered", "precision", "colour"]
MAY_BE_ANY_TEXT = {"checkpoint", "built", "created", "architecture", "driver"}


@pytest.mark.parametrize("field", FIELDS + [f"program.{name}" for name in OF_PROGRAM])
def test_a_field_of_another_type_or_value_is_one_sentence(field, made, program, tmp_path, monkeypatch):
    monkeypatch.setattr(exported_program, "load", lambda *_, device: program)
    folder = shutil.copytree(made, tmp_path / "export")
    text = (folder / FILE).read_text()
    assert outcome(folder) == "works"
    *outer, name = field.split(".")
    for value in VALUES:
        record = json.loads(text)
        (record["program"] if outer else record)[name] = value
        (folder / FILE).write_text(json.dumps(record))
        said = outcome(folder)
        if said == "works":
            assert value is None or isinstance(value, (int, float, str, list, dict))
            assert not (isinstance(value, float) and not math.isfinite(value)), (field, value)
            assert not (isinstance(value, str) and name not in MAY_BE_ANY_TEXT), (field, value)
        else:
            assert str(folder) in said or said.startswith("the program "), (field, value, said)
    record = json.loads(text)
    (record["program"] if outer else record).pop(name, None)
    (folder / FILE).write_text(json.dumps(record))
    outcome(folder)


TEXTS = [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"program": []}', b"1" * 5000]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_a_damaged_manifest_is_one_sentence(text, made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "export")
    (folder / FILE).write_bytes(text)
    assert "is damaged or of another version of p2p" in outcome(folder)


def edit(folder, **changes):
    record = json.loads((folder / FILE).read_text())
    record["program"] |= changes
    (folder / FILE).write_text(json.dumps(record))


def test_a_program_outside_of_its_folder_is_refused(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "export")
    outside = tmp_path / "outside.pt2"
    shutil.copy(folder / "generator.pt2", outside)
    for name in ("../outside.pt2", str(outside), "./generator.pt2", "..", ".", "a/b.pt2", "generator.pt2\x00", "~"):
        edit(folder, file=name)
        assert "file cannot be" in outcome(folder), name
    edit(folder, file="generator.pt2")
    (folder / "generator.pt2").unlink()
    (folder / "generator.pt2").symlink_to(outside)
    assert "is a link to a file elsewhere" in outcome(folder)
    (folder / "generator.pt2").unlink()
    shutil.copy(outside, folder / "other.pt2")
    (folder / "generator.pt2").symlink_to("other.pt2")
    assert outcome(folder) == "works"
    os.mkfifo(folder / "pipe.pt2")  # reading it would wait for ever
    edit(folder, file="pipe.pt2")
    assert "is missing, damaged or was replaced" in outcome(folder)


@pytest.mark.parametrize("name", ["cache", "engine", "manifest", "rewrite", "auto", "fastest", "quiet", "onyx", "os"])
def test_a_module_that_is_no_backend_is_refused(name, made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "export")
    edit(folder, backend=name)
    assert f"needs backend={name}, which this p2p does not have" in outcome(folder)
    edit(folder, backend=f"..{name}")
    assert "backend cannot be" in outcome(folder)


def test_an_artifact_that_is_replaced_while_it_is_loaded_is_loaded_again(made, tmp_path, monkeypatch):
    folder, other = (shutil.copytree(made, tmp_path / name) for name in ("export", "other"))
    record = json.loads((other / FILE).read_text())
    (other / FILE).write_text(json.dumps(record | {"created": "later"}))
    loaded = []

    def replace_first(path):
        if not loaded:
            loaded.append(path)
            shutil.rmtree(folder)
            other.rename(folder)
        return sha256(path)

    monkeypatch.setattr("p2p.deploy.manifest.sha256", replace_first)
    assert load_engine(folder, device=CPU).manifest.created == "later"


def test_a_program_that_was_read_while_torch_was_imported_is_not_read_again_and_another_one_is(
    made, tmp_path, monkeypatch
):
    folder = shutil.copytree(made, tmp_path / "export")
    manifest, reads = Manifest.load(folder), []
    monkeypatch.setattr("p2p.deploy.manifest.sha256", lambda path: reads.append(path) or sha256(path))
    with beside(manifest.program_is_whole, folder) as whole:
        pass
    assert whole() and load_engine(folder, device=CPU, whole=manifest).manifest == manifest
    assert reads == [folder / manifest.program.file]
    (folder / FILE).write_text(json.dumps(json.loads((folder / FILE).read_text()) | {"program_sha256": "0" * 64}))
    assert not Manifest.load(folder).program_is_whole(folder)
    with pytest.raises(ValueError, match="missing, damaged or was replaced"):
        load_engine(folder, device=CPU, whole=manifest)  # of the artifact that was there before


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_a_digest_is_that_of_all_bytes(tmp_path, size):
    contents = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(contents)
    assert sha256(tmp_path / "file") == hashlib.sha256(contents).hexdigest()


def test_what_fails_beside_an_import_fails_where_its_result_is_asked_for(tmp_path):
    with beside(sha256, tmp_path / "nowhere") as digest:
        pass
    with pytest.raises(FileNotFoundError):
        digest()
