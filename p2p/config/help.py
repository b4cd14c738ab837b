"""The page that --help prints. Hydra prints the same half a second later, because it lists all groups for any page."""

from __future__ import annotations

from string import Template

from omegaconf import OmegaConf

from p2p.shipped import CONF

FLAGS = ("-h", "--help")


def help_page(command: str) -> str:
    """conf/hydra/help/<command>.yaml, filled in."""
    page = OmegaConf.create({"hydra": {"help": OmegaConf.load(CONF / f"hydra/help/{command}.yaml")}}).hydra.help
    return Template(page.template).safe_substitute(APP_CONFIG_GROUPS=_groups())


def _groups() -> str:
    folders = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    return "".join(
        f"{folder.name}: {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}\n" for folder in folders
    )
