"""docs/api.md: its blocks run, in their order, on a small run, and give what stands behind `# ->`.

What trains, exports and translates folders is tested elsewhere; here the settings are checked.
"""

import re
from functools import partial

import torch

import p2p
from p2p.models.unet import UNet
from tests.api.conftest import exported, seeded, trained
from tests.conftest import ROOT, picture
from tests.interop import reference_networks as theirs

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_blocks_run_in_their_order(tmp_path, monkeypatch):
    trained(tmp_path / "runs/mine")
    exported(tmp_path / "runs/mine/export", seeded(UNet(image_size=32, width=8)))
    torch.save(seeded(theirs.unet(depth=5)).state_dict(), tmp_path / "latest_net_G.pth")
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate("abc"):
        picture(80, 60, seed=seed).save(tmp_path / f"photos/{name}.jpg")
    monkeypatch.chdir(tmp_path)
    checked = []
    for command in ("train", "export", "infer"):
        check = partial(p2p.compose, command=command)
        monkeypatch.setattr(p2p, command, lambda words, check=check: checked.append(check(words).name))

    names, told = {}, 0
    for block in BLOCK.findall((ROOT / "docs/api.md").read_text()):
        exec(block, names)
        for line in block.splitlines():
            code, arrow, value = line.partition("# -> ")
            if arrow:
                assert repr(eval(code, names)) == value
                told += 1
    assert checked == ["mine", "mine", "mine", "weight-10", "weight-100"]
    assert told > 8 and {path.suffix for path in (tmp_path / "photos").iterdir()} == {".jpg", ".png"}
