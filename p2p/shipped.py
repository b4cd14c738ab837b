"""What p2p ships beside its code, conf/ and the rest of data/: at the top of a clone, inside an installed package."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = (_PACKAGE / "conf").is_dir()  # by pyproject.toml, into a wheel alone
CONF = _PACKAGE / "conf" if _INSTALLED else _PACKAGE.parent / "conf"
SAMPLES = _PACKAGE / "samples" if _INSTALLED else _PACKAGE.parent / "data/samples"
WEIGHTS = _PACKAGE / "weights" if _INSTALLED else _PACKAGE.parent / "data/models"  # p2p/models is code


def samples() -> str:
    """The folder of the sample pairs, as one would type it: relative if it is below the current folder."""
    here = Path.cwd().resolve()
    return str(SAMPLES.relative_to(here) if SAMPLES.is_relative_to(here) else SAMPLES)


def models() -> dict[str, Path]:
    """The files of the trained generators that p2p ships, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


OmegaConf.register_new_resolver("samples", samples, replace=True)  # for conf/data/samples.yaml
