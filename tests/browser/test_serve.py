"""The page of `p2p serve` in a real browser, on a real server: `make test-browser`."""

import io
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from p2p.models.unet import UNet
from tests.api.test_translating import not_exported
from tests.browser.test_pages import SIZES, browser  # noqa: F401 - a fixture
from tests.conftest import picture
from tests.serve.conftest import LIMITS

pytestmark = pytest.mark.browser


class Inverting:
    """A network of which the output is known: the negative. It counts, and can be stopped and made to fail."""

    def __init__(self):
        self.count, self.gate, self.fails = 0, threading.Event(), False
        self.gate.set()

    def __call__(self, input_NCHW):
        self.count += 1
        assert self.gate.wait(60)
        if self.fails:
            raise RuntimeError("on purpose")
        return -input_NCHW


@pytest.fixture(scope="module")
def served():
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from p2p.serve import samples, server
    from p2p.serve.app import app_of
    from p2p.serve.guard import hosts_of
    from p2p.serve.limits import Limits
    from p2p.serve.service import Service

    network = Inverting()
    model = replace(not_exported(UNet(image_size=64, width=4)), network=network)
    frames = [np.asarray(picture(32, 32, seed=seed)) for seed in range(3)]
    colours = {"paper": "#ffffff", "ink": "#000000", "red": "#ff0000", "blue": "#0000ff"}
    facts = samples.facts(model, "test", palette=colours, count=len(frames))
    files = [samples.png(frame) for frame in frames]
    running, told = [], threading.Event()

    def service():
        return Service(model, Limits(**LIMITS), max_batch=1, max_wait_s=0.0)

    class Kept(server.Server):
        def __init__(self, config):
            super().__init__(config)
            running.append(self)

    with server.listen("127.0.0.1", 0) as listening, pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "Server", Kept)
        app = app_of(service, facts=facts, samples=files, hosts=hosts_of("127.0.0.1", None))
        options = {"timeout_s": 10, "ready": told.set}
        thread = threading.Thread(target=server.run, args=(app, listening), kwargs=options)
        thread.start()
        assert told.wait(30)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", network
        running[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def page(served, browser):  # noqa: F811
    yield from opened(served, browser, "desktop")


@pytest.fixture
def phone(served, browser):  # noqa: F811
    yield from opened(served, browser, "phone", has_touch=True, color_scheme="dark")


def opened(served, browser, size, **options):  # noqa: F811
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, **options)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    page.goto(served[0])
    page.locator("#time:not(:empty)").wait_for()
    yield page
    page.close()
    assert errors == []


BYTES_OF = """name => new Promise((done) =>
  document.getElementById(name).toBlob(async (blob) => done([...new Uint8Array(await blob.arrayBuffer())])))"""


def pixels(page, name):
    data = bytes(page.evaluate(BYTES_OF, name))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def settled(page):
    """The pixels of the drawing and of its translation, when no request is under way."""
    page.locator("#result:not(.busy)").wait_for()
    return pixels(page, "drawing").astype(int), pixels(page, "translation").astype(int)


def until(page, holds):
    for _ in range(1000):
        if holds():
            return
        page.wait_for_timeout(20)
    raise AssertionError("it did not come true in 20 s")


def stroke(page, start, end):
    box = page.locator("#drawing").bounding_box()
    for index, (x, y) in enumerate((start, end)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        page.mouse.down() if index == 0 else page.mouse.up()


def test_a_stroke_changes_the_translation(page):
    before, negative = settled(page)
    assert np.abs(before - np.asarray(picture(32, 32))).max() <= 1  # the first sample
    assert np.abs(255 - before - negative).max() <= 1
    page.get_by_role("radio", name="red").check()
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    drawn, negative = settled(page)
    assert (drawn[16, 16] == (255, 0, 0)).all() and np.abs(255 - drawn - negative).max() <= 1
    page.keyboard.press("Control+z")
    assert (settled(page)[0] == before).all()
    page.keyboard.press("Control+Shift+z")
    assert (settled(page)[0] == drawn).all()
    page.get_by_role("button", name="Clear").click()
    drawn, negative = settled(page)
    assert (drawn == 255).all() and (negative == 0).all()


def test_tools(page):
    page.keyboard.press("Delete")
    page.keyboard.press("2")
    page.keyboard.press("r")
    stroke(page, (0.25, 0.25), (0.75, 0.75))
    drawn, _ = settled(page)
    assert (drawn == 0).all(axis=2).sum() == 16 * 16
    page.keyboard.press("f")
    page.keyboard.press("4")
    stroke(page, (0.5, 0.5), (0.5, 0.5))
    drawn, negative = settled(page)
    assert (drawn == (0, 0, 255)).all(axis=2).sum() == 16 * 16 and (negative[16, 16] == (255, 255, 0)).all()
    page.keyboard.press("e")
    for _ in range(4):
        page.keyboard.press("]")
    assert page.locator("#size").input_value() == "18"
    stroke(page, (0.5, 0.5), (0.5, 0.5))
    assert (settled(page)[0][16, 16] == 255).all()


def test_the_keyboard_draws(page):
    page.keyboard.press("Delete")
    page.get_by_role("radio", name="ink").check()
    page.locator("#drawing").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.down(" ")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.up(" ")
    page.keyboard.press("ArrowDown")
    drawn, negative = settled(page)
    assert (drawn[16, 6:20] == 0).all() and (drawn[16, 28] == 255).all() and (negative[16, 10] == 255).all()


def test_the_latest_drawing_wins_and_none_of_those_between_is_asked_for(page, served):
    settled(page)
    _, network = served
    network.gate.clear()
    count = network.count
    page.get_by_role("radio", name="red").check()
    for index in range(6):
        stroke(page, (0.1, 0.1 + 0.12 * index), (0.9, 0.1 + 0.12 * index))
    until(page, lambda: network.count > count)
    network.gate.set()
    drawn, negative = settled(page)
    assert network.count == count + 2  # the first, and the last with all strokes
    assert (drawn[[int(32 * (0.1 + 0.12 * index)) for index in range(6)], 16] == (255, 0, 0)).all()
    assert np.abs(255 - drawn - negative).max() <= 1


def test_an_image_of_ones_own_and_the_download(page, tmp_path):
    Image.new("RGB", (90, 60), (10, 20, 30)).save(tmp_path / "own.png")
    page.set_input_files("#file", tmp_path / "own.png")
    until(page, lambda: (pixels(page, "drawing") == (10, 20, 30)).all())
    drawn, negative = settled(page)
    assert (drawn == (10, 20, 30)).all() and np.abs(negative - (245, 235, 225)).max() <= 1
    with page.expect_download() as download:
        page.keyboard.press("s")
    with Image.open(download.value.path()) as saved:
        assert saved.size == (32, 32) and np.abs(np.asarray(saved).astype(int) - negative).max() == 0
    page.get_by_role("button", name="sample 3").click()
    until(page, lambda: np.abs(pixels(page, "drawing").astype(int) - np.asarray(picture(32, 32, seed=2))).max() <= 1)


def test_what_went_wrong_is_said_in_words(page, served):
    settled(page)
    served[1].fails = True
    try:
        page.keyboard.press("Delete")
        page.get_by_text("cannot translate the image: the network failed, see the server's log").wait_for()
    finally:
        served[1].fails = False
    page.route("**/translate", lambda route: route.abort())
    stroke(page, (0.2, 0.2), (0.4, 0.4))
    page.get_by_text("The server does not answer. Is it still running?").wait_for()
    page.unroute("**/translate")
    stroke(page, (0.2, 0.2), (0.4, 0.4))
    page.locator("#error").wait_for(state="hidden")


def test_a_phone_draws_with_a_finger(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    before, _ = settled(phone)
    for name in ("drawing", "translation"):  # both are seen without scrolling
        box = phone.locator(f"#{name}").bounding_box()
        assert box["y"] + box["height"] <= 844 + 10 and box["width"] >= 240
    box = phone.locator("#drawing").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    drawn, negative = settled(phone)
    assert (drawn[16, 16] == 0).all() and (drawn != before).any()
    assert np.abs(255 - drawn - negative).max() <= 1


def test_everything_has_a_name_and_the_keyboard_is_explained(page):
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input:not([hidden]), canvas')].filter(each =>"
        " !(each.ariaLabel || each.textContent.trim() || each.labels?.length || each.querySelector('img[alt]')))"
        ".map(each => each.outerHTML)"
    )
    assert unnamed == []
    page.keyboard.press("?")
    page.get_by_text("narrower, wider").wait_for()
    page.keyboard.press("Escape")
    page.locator("#help").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "API"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
