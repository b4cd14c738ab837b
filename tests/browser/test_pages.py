"""The pages in a real browser: `make test-browser`."""

import shutil
import time

import numpy as np
import pytest

from p2p.codecs.fast import encode_png
from p2p.data.pairs import Source
from p2p.report import gallery
from p2p.report.page import data_of, publish
from tests.conftest import picture

pytestmark = pytest.mark.browser
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="the extra browser is not installed")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is neither chromium nor google-chrome")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """`visit(path)`: the page there, which must not fail; options are the browser's."""
    pages = []

    def to(path, *, size="desktop", **options):
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        pages.append((page, errors))
        return page

    yield to
    for page, errors in pages:
        page.close()
        assert errors == []


def results(folder, count):
    """A page of `count` images of 96x64, of which the one named 00007 is by far the worst."""
    (folder / "images").mkdir()
    target = np.asarray(picture(96, 64))
    noise = np.random.default_rng(0).integers(-20, 20, target.shape)
    entries = []
    for index in range(count):
        output = np.clip(target + noise * (5 if index == 7 else 1), 0, 255).astype(np.uint8)
        path = folder / f"images/{index:05d}.png"
        path.write_bytes(encode_png(np.ascontiguousarray(output)))
        scores = gallery.scores_of(output, target)
        entries.append(gallery.Entry(path.stem, target, output, target, scores, [Source(path)] * 3))
    return gallery.write(entries, folder, title="p2p: test", count=count, total=count, settings={"seed": "0"})


def names(page):
    return page.locator(".card figcaption span:first-child").all_text_contents()


def test_images_are_sorted_searched_and_opened(visit, tmp_path):
    page = visit(results(tmp_path, 30))
    page.select_option("#sort", "PSNR, worst first")
    assert names(page)[0] == "00007"
    page.select_option("#sort", "name")
    page.keyboard.press("/")
    page.keyboard.type("0002")
    assert names(page) == ["00002", *(f"000{number}" for number in range(20, 30))]
    page.locator(".card").first.click()
    assert page.locator("dialog strong").text_content() == "00002"
    page.wait_for_function("[...document.querySelectorAll('.stage img')].at(-1).src.endsWith('images/00002.png')")
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog strong").text_content() == "00020"
    box = page.locator(".stage .compare").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(96 / 64, rel=0.01)
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 9)
    assert float(page.locator(".stage input").input_value()) == pytest.approx(25, abs=3)
    page.select_option("#zoom", "4")
    page.wait_for_function("document.querySelector('.stage .compare').offsetWidth === 4 * 96")
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.textContent.includes('00020')")


def test_a_file_that_arrives_late_does_not_change_the_next_image(visit, tmp_path):
    results(tmp_path, 2)
    (tmp_path / "images/00000.png").write_bytes(
        encode_png(np.zeros((80, 120, 3), np.uint8))
    )  # not as large as the next
    page = visit(tmp_path / "index.html")
    width = page.evaluate(
        """async () => {
          const asked = [], Ours = Image;
          window.Image = function () { return asked[asked.push(new Ours()) - 1] };
          show(0);
          await Promise.all(asked.map((picture) => picture.decode()));
          const late = [...asked];
          show(1);
          await Promise.all(asked.map((picture) => picture.decode()));
          late.forEach((picture) => picture.onload());
          return stage.style.getPropertyValue("--w");
        }"""
    )
    assert width == "96"


def test_only_what_is_near_has_pictures(visit, tmp_path):
    page = visit(results(tmp_path, 400))
    page.wait_for_function("document.images.length > 0")
    assert page.evaluate("document.images.length") < 200
    to_the_end(page, "00399")
    page.wait_for_function("[...document.querySelectorAll('.card')].at(-1).querySelectorAll('img').length === 3")
    assert page.evaluate("document.querySelectorAll('.card')[0].querySelectorAll('img').length") == 0


def to_the_end(page, name):
    """Scroll until the card of that name is there."""
    page.wait_for_function(
        "(name) => { scrollTo(0, document.body.scrollHeight);"
        " return [...document.querySelectorAll('.card')].at(-1).textContent.includes(name) }",
        arg=name,
    )


def test_of_ten_thousand_images_the_page_holds_as_many_cards_as_were_scrolled_to(visit, tmp_path):
    results(tmp_path, 1)
    data = data_of((tmp_path / "index.html").read_text())
    (image,) = data["images"]
    scores = [{"PSNR": 20 + (index * 7919 % 10_000) / 1000} for index in range(10_000)]
    data["images"] = [image | {"name": f"{index:05d}", "scores": each} for index, each in enumerate(scores)]
    page = visit(publish("gallery", tmp_path, title="t", data=data))
    assert len(names(page)) < 1000
    page.fill("#search", "0999")
    assert names(page) == ["00999", *(f"0999{digit}" for digit in range(10))]
    page.fill("#search", "")
    page.select_option("#sort", "PSNR, best first")
    best = sorted(range(10_000), key=lambda index: -scores[index]["PSNR"])
    assert names(page)[:50] == [f"{index:05d}" for index in best[:50]]
    page.locator(".card").first.click()
    page.keyboard.press("ArrowLeft")  # the last, which no scrolling has reached
    assert page.locator("dialog strong").text_content() == f"{best[-1]:05d}"
    page.keyboard.press("Escape")
    page.wait_for_function(f"document.activeElement.textContent.includes('{best[-1]:05d}')")
    assert len(names(page)) == 10_000


def test_a_phone_shows_all_of_it_also_in_the_dark(visit, tmp_path):
    page = visit(results(tmp_path, 3), size="phone", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"
    page.locator(".card").first.click()
    assert page.evaluate("(dialog => dialog.scrollWidth <= dialog.clientWidth)(document.querySelector('dialog'))")


@pytest.mark.parametrize("status", ["running", "finished"])
def test_the_page_of_a_training_loads_itself_again_until_it_is_over(visit, tmp_path, status):
    history = [{"epoch": epoch, "val/L1": 1 / epoch, "lr/G": 2e-5} for epoch in (1, 2, 3)]
    data = {"status": status, "updated": time.time(), "epoch": 3, "epochs": 9, "images_per_second": 5.0}
    data |= {"epoch_seconds": 2.0, "seconds_left": 12.0, "history": history, "samples": [], "settings": {}}
    page = visit(publish("training", tmp_path, title="t", data=data), size="phone")
    assert page.locator("svg polyline").count() == 2
    assert page.locator(".charts h2").nth(1).text_content() == "lr/G 0.00002 in epoch 3"
    (tmp_path / "first").mkdir()
    first = visit(publish("training", tmp_path / "first", title="t", data=data | {"history": history[:1]}))
    assert first.locator("svg circle").count() == 2  # a line of one point is not seen
    assert page.locator(".charts svg").nth(1).locator("text").nth(0).text_content() == "0.00001"  # of a constant
    publish("training", tmp_path, title="t", data=data | {"epoch": 4})
    page.wait_for_timeout(6500)
    assert f"epoch {4 if status == 'running' else 3} of 9" in page.locator("header").text_content()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_many_jobs_of_a_sweep_are_lines_through_their_settings(visit, tmp_path):
    jobs = [
        {"values": [str(10**-index), word], "score": 0.1 + index / 100, "minutes": 1.0, "folder": "x", "picture": None}
        | {"reason": None, "note": None}
        for index, word in enumerate(["a", "b", "c", "d"] * 3)
    ]
    shown = {"keys": ["optimizer.lr", "generator"], "monitor": "val/L1", "jobs": jobs, "beside": {}, "settings": {}}
    page = visit(publish("sweep", tmp_path, title="p2p: sweep", data=shown), size="phone")
    lines = page.locator("svg.parallel polyline").evaluate_all(
        "lines => lines.map((line) => line.getAttribute('points').split(' ').map((point) => +point.split(',')[1]))"
    )
    assert len(lines) == 12 and lines[-1][-1] == max(
        line[-1] for line in lines
    )  # the best is on top, and is the lowest
    rates = sorted(line[0] for line in lines)
    steps = np.diff(rates)
    assert np.allclose(steps, steps[0])  # powers of ten are evenly spread
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
