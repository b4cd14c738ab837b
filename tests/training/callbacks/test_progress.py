from types import SimpleNamespace

import torch

from p2p.training.callbacks.progress import Progress


def test_the_bar_shows_the_losses_that_there_are():
    def shown(**losses):
        metrics = {f"train/{name}": torch.tensor(loss) for name, loss in losses.items()}
        return Progress().get_metrics(SimpleNamespace(callback_metrics=metrics), None)

    assert shown(D=0.5, G_gan=1.25, G_l1=0.125) == {"D": "0.500", "G_gan": "1.250", "G_l1": "0.125", "images/s": "0.0"}
    assert shown(G_mine=2.0) == {"G_mine": "2.000", "images/s": "0.0"}
    assert shown(G_l1=0.125) == {"G_l1": "0.125", "images/s": "0.0"}
    assert shown(D=0.5, G_gan=-1.25) == {"D": "0.500", "G_gan": "-1.250", "images/s": "0.0"}
