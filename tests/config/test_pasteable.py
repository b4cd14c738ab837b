import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from p2p.__main__ import main
from p2p.config.cli import for_hydra
from p2p.config.pasteable import command_line, run_settings
from p2p.shipped import CONF

NAMES = ["plain", "a b", "a,b", "x=y", "épäule", "it's", 'say "hi"', "$HOME", "a${x}b", r"\${x}", "back\\", r"a\'b"]
NAMES += [
    "[1]",
    "{a:1}",
    "null",
    "true",
    "12",
    "012",
    "1e3",
    "nan",
    "(x",
    "~a",
    "!x",
    "a\nb",
    "#c",
    "日本",
    "a;b",
    "`x`",
]
NAMES += [" lead", "model.lambda_l1-10,seed-0", "choice(1,2)", "../x", "*", "${", r"\\${x}", "a&b|c", "-x", "<>"]


def test_a_command_that_is_pasted_into_a_shell_has_the_same_values(tmp_path, monkeypatch):
    (tmp_path / "infer.py").write_text("import sys\nprint(sys.argv[1:])")
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    lines = [command_line("infer", "+pipeline=overlap", name=name, batch_size=8, layout=None) for name in NAMES]
    out = subprocess.run(
        ["sh", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tmp_path}:/bin:/usr/bin"},
    ).stdout
    for name, line in zip(NAMES, out.splitlines(), strict=True):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("infer", overrides=for_hydra("infer", eval(line))[0])
        assert (cfg.name, cfg.run_dir, cfg.batch_size, cfg.layout) == (name, f"runs/{name}", 8, None)
        assert cfg.pipeline._target_ == "p2p.pipelines.overlap.run"


@pytest.mark.parametrize(
    ("running", "words"),
    [
        ("train.py", "python export.py"),
        ("./train.py", "python export.py"),
        ("../p2p/train.py", "python ../p2p/export.py"),
        ("p2p/__main__.py", "python -m p2p export"),
        ("x/ipykernel_launcher.py", "python -m p2p export"),
        ("{bin}/p2p", "p2p export"),
        (".venv/bin/p2p", ".venv/bin/p2p export"),
    ],
)
def test_a_command_is_started_as_the_one_that_runs(running, words, tmp_path, monkeypatch):
    """`p2p` alone only where a shell would find the same one: .venv/bin/p2p was started with .venv not activated."""
    for folder in ("bin", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "p2p").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setattr(sys, "argv", [running.format(bin=tmp_path / "bin")])
    assert command_line("export") == words


@pytest.mark.parametrize("command", ["train", "export", "infer"])
def test_the_help_page_has_commands_to_paste(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["p2p/__main__.py", command, "--help"])
    with suppress(SystemExit):  # Hydra's, with status 0
        main()
    out = capsys.readouterr().out
    assert f"\n  python -m p2p {command} --cfg job " in out and f"python -m p2p {command} --hydra-help" in out
    assert ".py" not in out


def test_a_run_is_found_wherever_it_lies(tmp_path):
    assert run_settings("runs/x/a,b") == {"name": "x/a,b"}
    assert run_settings(Path("runs/y").absolute()) == {"name": "y"}
    assert run_settings("runs/../elsewhere") == {"run_dir": "elsewhere"}
    assert run_settings("runs/../../elsewhere") == {"run_dir": str(Path("../elsewhere").resolve())}
    assert run_settings("other/run") == {"run_dir": "other/run"}
    assert run_settings(tmp_path) == {"run_dir": str(tmp_path)}
