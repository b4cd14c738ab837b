"""The page of a training that goes on."""

import pytest
import torch
from lightning import Callback
from PIL import Image
from torch.utils.data import DataLoader

from p2p.batch import Batch
from p2p.report.page import data_of
from p2p.training.callbacks.live import Live
from p2p.training.callbacks.progress import Progress
from p2p.training.writer import Writer, writer_of
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix


class Watch(Callback):
    """What the page says while the third epoch is trained; and, if it is to, an end by an exception."""

    def __init__(self, folder, *, fail):
        self.folder, self.fail, self.seen = folder, fail, None

    def on_train_batch_end(self, trainer, *rest):
        if trainer.current_epoch == 2:
            writer_of(trainer).wait()
            self.seen = data_of((self.folder / "index.html").read_text())
            if self.fail:
                raise RuntimeError("stop")


def train(folder, *, fail=False):
    (folder / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "samples/epoch_0001.png")
    batches = [Batch(["x"], *torch.rand(2, 1, 3, 16, 16)) for _ in range(2)]
    watch, writer = Watch(folder, fail=fail), Writer()
    callbacks = [writer, Progress(), Live(folder=str(folder), title="p2p: <a>"), watch]
    model, val = pix2pix(TinyGenerator(), TinyDiscriminator()), DataLoader(batches[:1], batch_size=None)
    try:
        fit(model, batches, folder, val=val, max_epochs=3, callbacks=callbacks, enable_progress_bar=True)
    except RuntimeError as error:
        assert fail and str(error) == "stop"
    writer.wait()
    return watch.seen, data_of((folder / "training.html").read_text())


def test_it_is_written_while_training_goes_on_and_when_it_is_over(tmp_path):
    during, after = train(tmp_path)
    assert (during["status"], during["epoch"], during["epochs"]) == ("running", 2, 3)
    assert during["seconds_left"] == pytest.approx(during["epoch_seconds"]) and during["images_per_second"] > 0
    assert during["samples"] == ["samples/epoch_0001.png"]
    assert (after["status"], after["epoch"], after["seconds_left"]) == ("finished", 3, 0)
    assert [row["epoch"] for row in after["history"]] == [1, 2, 3]
    assert {"val/L1", "val/PSNR", "val/SSIM", "train/D", "train/G_gan", "train/G_l1"} <= after["history"][0].keys()
    assert "<title>p2p: &lt;a&gt;</title>" in (tmp_path / "index.html").read_text()


def test_a_training_that_fails_is_stopped_on_its_page(tmp_path):
    _, after = train(tmp_path, fail=True)
    assert (after["status"], after["epoch"]) == ("stopped", 2)
    assert Live(folder=str(tmp_path), title="t")._earlier() == after["history"]


@pytest.mark.parametrize("text", ["", '<script type="application/json" id="data">{}</script>'])
def test_a_page_of_another_version_has_no_curves(text, tmp_path):
    (tmp_path / "training.html").write_text(text)
    assert Live(folder=str(tmp_path), title="t")._earlier() == []
