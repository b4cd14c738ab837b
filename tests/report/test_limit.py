import re
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from p2p.commands.infer import settings_done
from p2p.config.cli import CONF
from p2p.profiling.clock import WORK, Clock, Span
from p2p.report import limit as limits
from p2p.report.limit import ADVICE, limit, pools
from p2p.report.tables import show_stages

SECOND = 10**9


def clock_of(wall, *work, cpu=0.0):
    """A clock of `wall` seconds, and (stage, lane, seconds, images) of work."""
    clock = Clock()
    clock.add(Span("init", "main", 0, 5 * SECOND))
    clock.add(Span("e2e", "main", 0, wall * SECOND, 96))
    for stage, lane, seconds, images in work:
        clock.add(Span(stage, lane, 0, round(seconds * SECOND), images))
    clock.cpu_seconds = cpu
    return clock


def encoders(seconds, count=8):
    return [("encode", f"writer {n}", seconds, 96 // count) for n in range(count)]


def test_workers_that_share_stages_are_one_pool():
    work = [("decode", "reader 0", 2, 48), ("preprocess", "reader 0", 1, 48), ("decode", "reader 1", 3, 48)]
    work += [("generate", "engine stream", 5, 96), ("encode", "writer 0", 4, 96)]
    found = {frozenset(pool.lanes): (pool.slowest, pool.busy) for pool in pools(clock_of(10, *work))}
    assert found == {
        frozenset({"reader 0", "reader 1"}): ("decode", pytest.approx((2 + 1 + 3) / (10 * 2))),
        frozenset({"engine stream"}): ("generate", pytest.approx(0.5)),
        frozenset({"writer 0"}): ("encode", pytest.approx(0.4)),
    }


def test_a_stage_of_two_pools_counts_where_it_was_worked_at():
    """The host normalizes what the workers have cropped; and these do everything but the engine's part."""
    work = [("decode", "worker 0", 4, 48), ("preprocess", "worker 0", 1, 48), ("encode", "worker 1", 5, 96)]
    work += [("preprocess", "main", 0.1, 0), ("generate", "main", 8.9, 96)]
    found = {frozenset(pool.lanes): (pool.slowest, round(pool.busy, 3)) for pool in pools(clock_of(10, *work))}
    assert found == {frozenset({"worker 0", "worker 1"}): ("encode", 0.5), frozenset({"main"}): ("generate", 0.9)}
    assert limit(clock_of(10, *work))[1].startswith("generate limits the run (1 worker 90% busy); what helps: ")


@pytest.mark.parametrize("stage", WORK)
def test_the_busiest_pool_is_the_limit(stage):
    work = [(each, f"{each} {n}", 9.6 if each == stage else 5, 12) for each in WORK for n in range(8)]
    assert limit(clock_of(10, *work)) == (
        stage,
        f"{stage} limits the run (8 workers 96% busy); what helps: {ADVICE[stage]}",
    )


def test_many_seconds_of_many_workers_are_no_limit():
    """8 encoders at half load add up to 40 s; the engine's 9 s on its own are what the run waits for."""
    stage, sentence = limit(clock_of(10, ("generate", "engine stream", 9, 96), *encoders(5)))
    assert stage == "generate" and "1 worker 90% busy" in sentence


def test_a_stage_after_another_is_told_to_overlap():
    work = [("decode", "main", 1, 96), ("generate", "main", 6, 96), ("encode", "main", 2.5, 96)]
    stage, sentence = limit(clock_of(10, *work))
    assert stage == "generate"
    words = "stages ran one after another, and generate took 60% of the time; what helps: pipeline=overlap"
    assert sentence.startswith(words)


def test_the_processor_can_be_the_limit(monkeypatch):
    monkeypatch.setattr(limits, "available_cores", lambda: 2)
    work = [("decode", "reader 0", 9, 96), ("generate", "main", 7, 96)]
    stage, sentence = limit(clock_of(10, *work, cpu=19))
    assert stage == "decode"
    assert sentence.startswith(
        "the processor limits the run (95% of 2 cores, most of it for decode); what helps: more cores, or smaller files"
    )
    assert limit(clock_of(10, *work, cpu=15))[1].startswith("decode limits the run")


def test_what_is_so_already_is_not_recommended():
    clock = clock_of(10, *encoders(9))
    assert "codec.format=jpg" in limit(clock, format="png")[1]
    assert limit(clock, format="jpg")[1].endswith(": more cores, or codec.subsampling=420, or a lower codec.quality")
    assert limit(clock_of(10, ("write", "worker 0", 9, 96)), format="jpg")[1].endswith("a faster disk for output=")
    assert limit(clock, format="webp")[1].endswith("or codec.format=jpg, which encodes faster than webp")
    assert limit(clock, format="npy")[1].endswith(": more cores")
    on_gpu = clock_of(10, ("generate", "engine stream", 3, 96), ("decode", "decoder 0", 9, 96))
    assert limit(on_gpu)[1].endswith(": codec=fast, which decodes on all cores, or a larger batch_size")
    assert limit(on_gpu, done={"batch_size"})[1].endswith(": codec=fast, which decodes on all cores")


def test_a_run_in_which_all_wait_has_no_limit():
    stage, sentence = limit(clock_of(10, ("generate", "main", 3, 96), *encoders(1)))
    assert stage == "generate"
    assert sentence.startswith("no stage limits the run (generate is the busiest, 1 worker 30% busy)")


def test_nothing_is_said_about_nothing():
    assert limit(Clock()) is None
    assert limit(clock_of(10)) is None


def test_what_is_advised_can_be_typed():
    for stage in WORK:
        sentence = f"{ADVICE[stage]} {limit(clock_of(10, (stage, 'main', 9, 96)))[1]}"
        for command, override in [("infer", text) for text in re.findall(r"\+?[\w.]+=\w+", sentence)]:
            known = "export" if override.startswith("backend") else command
            with initialize_config_dir(str(CONF), version_base="1.3"):
                compose(known, [override])


def test_the_table_has_shares_and_speeds(capsys):
    show_stages(clock_of(10, ("generate", "engine stream", 9, 96), *encoders(5)))
    out = capsys.readouterr().out
    cells = {
        line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:-1]]
        for line in out.splitlines()
        if "│" in line
    }
    assert cells["start"] == ["", "5.000", "", "", "", ""]
    assert cells["generate"] == ["96", "9.000", "1", "90%", "10.7", "10.7"]
    assert cells["encode"] == ["96", "40.000", "8", "50%", "2.4", "19.2"]
    assert cells["end to end"] == ["96", "10.000", "", "", "", "9.6"]
    assert "generate limits the run" in out.splitlines()[-2] + out.splitlines()[-1]


def test_the_table_does_without_lanes(capsys):
    clock = Clock()
    clock.seconds.update(encode=2.0, e2e=4.0)
    clock.images.update(encode=8, e2e=8)
    show_stages(clock)
    assert [cell.strip() for cell in capsys.readouterr().out.splitlines()[4].split("│")[2:-1]] == [
        "8",
        "2.000",
        "1",
        "50%",
        "4.0",
        "4.0",
    ]


def test_the_table_fits_a_terminal_and_a_pipe(capsys):
    clock = Clock()
    clock.add(Span("e2e", "main", 0, 1000 * SECOND, 12_345_678))
    for n in range(128):
        for stage in WORK:
            clock.add(Span(stage, f"{stage} {n}", 0, 950 * SECOND, 1_000_000))
    show_stages(clock)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert "…" not in out and "128000000" in out


def test_what_was_done_is_not_recommended():
    alone = clock_of(10, ("generate", "main", 9, 96))
    assert "pipeline=overlap" in limit(alone)[1] and "then a larger batch_size, or an export" in limit(alone)[1]
    done = {"pipeline=overlap", "batch_size", "pipeline.slots", "backend=fastest"}
    sentence = limit(alone, done=done)[1]
    assert not any(setting in sentence for setting in done) and sentence.endswith(
        "of the time; what helps: a faster machine"
    )
    idle = clock_of(10, ("generate", "engine stream", 1, 96), *encoders(5))
    assert limit(idle)[1].endswith("more images, a larger batch_size or pipeline.slots")
    assert limit(idle, done=done)[1].endswith("more images")
    encoding = clock_of(10, *encoders(76))
    assert limit(encoding, format="png", done=done)[1].endswith(
        "more cores, or codec.png_level=0, which does not compress, or codec.format=jpg, which encodes faster than png"
    )


def test_neither_what_was_typed_nor_what_auto_chose_is_recommended():
    manifest = SimpleNamespace(program=SimpleNamespace(considered=None))
    for pipeline, done in (("auto", True), ("overlap", True), ("sequential", False), ("lightning", False)):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("infer", [f"pipeline={pipeline}"])
        assert (limits.OVERLAP in settings_done(cfg, manifest, images=9)) == done


def test_what_encodes_with_less_work_is_recommended_until_it_is_chosen():
    manifest = SimpleNamespace(program=SimpleNamespace(considered=None))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("infer", ["codec.subsampling=420", "codec.png_level=0"])
    done, encoding = settings_done(cfg, manifest, images=9), clock_of(10, *encoders(9))
    assert limit(encoding, format="jpg", done=done)[1].endswith(": more cores, or a lower codec.quality")
    assert limit(encoding, format="png", done=done)[1].endswith(": more cores")  # JPEG would take longer
