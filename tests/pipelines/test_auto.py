"""Which pipeline infer.py takes where none is named, and that it says so."""

from contextlib import suppress

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from p2p.config.cli import CONF
from p2p.data.pairs import Pair, Source
from p2p.pipelines import auto, overlap, sequential
from tests.pipelines.conftest import Negative, files, stages_for


@pytest.fixture
def ran(monkeypatch):
    """The pipelines that were started, and with what options."""
    ran = []
    for module in (sequential, overlap):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "run", lambda *_, _name=name, **options: ran.append((_name, options)))
    return ran


SOONER = "longer to load and save than its workers take to start"
LATER = "no longer to load and save than the workers of overlap take to start"


@pytest.mark.parametrize(
    ("count", "kilobytes", "batch_size", "name", "there"),
    [
        (1, 9, 1, "sequential", "1 image (9 kB) takes"),
        (64, 25, 8, "sequential", "64 images (1.6 MB) take"),
        (210, 25, 8, "overlap", "210 images (5.2 MB) take"),
        (210, 25, 210, "sequential", "210 images (5.2 MB) take"),  # all at once, on two cores
        (12, 2000, 1, "overlap", "12 images (24.0 MB) take"),  # photos
        (12, 2000, 16, "overlap", "12 images (24.0 MB) take"),
        (21_000, 25, 8, "overlap", "21,000 images take"),
    ],
)
def test_the_one_that_is_sooner_done_is_taken_and_said(
    tmp_path, ran, capsys, monkeypatch, count, kilobytes, batch_size, name, there
):
    with (tmp_path / "one.jpg").open("wb") as file:
        file.truncate(1000 * kilobytes)
    monkeypatch.setattr(auto, "available_cores", lambda: 2)
    pairs = [Pair(str(index), Source(tmp_path / "one.jpg")) for index in range(count)]
    auto.run(pairs, stages_for(Negative(), tmp_path, image_size=16), batch_size=batch_size)
    assert capsys.readouterr().out == f"pipeline: {name}, because {there} {SOONER if name == 'overlap' else LATER}\n"
    assert [each for each, _ in ran] == [name]


@pytest.mark.parametrize("target", ["p2p.pipelines.auto.run", "p2p.pipelines.overlap.run"])
@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"workers": 0}, {"slots": 3}])
@pytest.mark.parametrize(("count", "batch_size"), [(3, 1), (90, 8), (300, 8), (300, 400)])
def test_as_many_workers_are_started_ahead_as_it_will_ask_for(
    many, tmp_path, monkeypatch, target, options, count, batch_size
):
    asked = []

    class Asked(Exception):
        pass

    def workers(count, **_):
        asked.append(count)
        raise Asked

    monkeypatch.setattr(overlap, "Workers", workers)
    monkeypatch.setattr(sequential, "run", lambda *_, **__: asked.append(0))
    for module in ("auto", "workers"):
        monkeypatch.setattr(f"p2p.pipelines.{module}.available_cores", lambda: 3)
    pairs = [Pair(str(index), Source(path)) for index, path in enumerate([many(1)[0].input.path] * count)]
    with suppress(Asked):
        run = {"p2p.pipelines.auto.run": auto.run, "p2p.pipelines.overlap.run": overlap.run}[target]
        run(pairs, stages_for(Negative(), tmp_path, image_size=16), batch_size=batch_size, **options)
    ahead = auto.workers_ahead(
        target, pairs, batch_size=batch_size, workers=options.get("workers"), slots=options.get("slots")
    )
    assert [ahead] == asked


def test_other_pipelines_have_none(many):
    target = "p2p.pipelines.lightning.run"
    assert auto.workers_ahead(target, many(300), batch_size=8, workers=None, slots=None) == 0


def test_its_options_ask_for_overlap(many, tmp_path, ran, capsys):
    stages = stages_for(Negative(), tmp_path, image_size=16)
    auto.run(many(2), stages, batch_size=1, workers=3)
    auto.run(many(2), stages, batch_size=1, slots=5)
    assert ran == [
        ("overlap", {"batch_size": 1, "slots": None, "workers": 3}),
        ("overlap", {"batch_size": 1, "slots": 5, "workers": None}),
    ]
    assert capsys.readouterr().out == ""


def test_of_nothing_nothing_is_said(tmp_path, capsys):
    auto.run([], stages_for(Negative(), tmp_path / "out", image_size=16), batch_size=4)
    assert capsys.readouterr().out == "" and files(tmp_path) == {}


def test_a_pipeline_of_another_package(many, tmp_path, monkeypatch):
    """One file and one YAML: it sorts the stages in an order of its own, and writes the oracle's bytes."""
    (tmp_path / "backwards.py").write_text(BACKWARDS)
    (tmp_path / "conf/pipeline").mkdir(parents=True)
    (tmp_path / "conf/pipeline/backwards.yaml").write_text("_target_: backwards.run\n_partial_: true\n")
    monkeypatch.syspath_prepend(tmp_path)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("infer", [f"hydra.searchpath=[file://{tmp_path}/conf]", "pipeline=backwards"])
    instantiate(cfg.pipeline)(many(5), stages_for(Negative(), tmp_path / "mine", image_size=16), batch_size=2)
    sequential.run(many(5), stages_for(Negative(), tmp_path / "oracle", image_size=16), batch_size=2)
    assert files(tmp_path / "mine") == files(tmp_path / "oracle") and len(files(tmp_path / "mine")) == 5


BACKWARDS = """
def run(pairs, stages, *, batch_size):
    stages.warmup(1, images=len(pairs))
    with stages.clock("e2e", len(pairs)):
        for image in [stages.load(pair) for pair in reversed(pairs)]:
            stages.save(image.pair, stages.outputs([image], batch_size=1)[0], image.size)
"""
