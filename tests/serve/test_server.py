"""The page and what surrounds it, and the command as a user starts and ends it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from functools import partial

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from uvicorn.server import ServerState

import p2p
from p2p.commands import serve
from p2p.data.pairs import Pair, Source
from p2p.models.unet import UNet
from p2p.serve import samples
from p2p.serve.app import app_of
from p2p.serve.guard import hosts_of
from p2p.serve.limits import Limits
from p2p.serve.server import listen, protocol, run
from p2p.serve.service import Service
from tests.api.conftest import trained
from tests.api.test_translating import not_exported
from tests.conftest import ROOT, picture
from tests.serve.conftest import LIMITS
from tests.serve.test_translate import file_of, image_in, refused


def test_the_page_and_its_parts_come_from_here_alone(asked, translate):
    async def ask(client, app):
        page = (await client.get("/")).text
        parts = set(re.findall(r'(?:src|href)="([^"]+)"', page)) - {"data:,"}
        got = {part: await client.get(f"/{part}") for part in parts}
        got["canvas.js"] = await client.get("/canvas.js")
        return await client.get("/"), got, await client.get("/samples/0.png"), await client.get("/samples/1.png")

    page, parts, sample, none = asked(translate, ask, samples=[file_of(picture(32, 32))])
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert set(parts) == {"page.css", "page.js", "canvas.js", "docs"}
    assert all(part.status_code == 200 for part in parts.values())
    assert parts["page.js"].headers["content-type"].startswith("text/javascript")
    assert not re.search(r"https?://|style=|onclick=\"", page.text + parts["page.js"].text + parts["page.css"].text)
    assert image_in(sample).tobytes() == picture(32, 32).tobytes()
    refused(none, 404)


def test_other_sites_are_refused(asked, translate):
    data = file_of(picture(40, 40))

    async def ask(client, app):
        async def post(**headers):
            return await client.post("/translate", content=data, headers=headers)

        return [
            await post(origin="http://localhost:8000", host="localhost:8000"),
            await post(origin="http://evil.example", host="localhost:8000"),
            await post(origin="null", host="localhost:8000"),
            await post(origin="http://[", host="localhost:8000"),
            await post(host=""),
            await post(host="evil.example"),  # which its owner lets point to 127.0.0.1
            await post(host="[::1]:8000"),
            await post(host="[::1"),
            await client.get("/healthz", headers={"host": "10.0.0.7:8000"}),  # a probe
            await client.get("/model", headers={"host": "10.0.0.7:8000"}),
        ]

    answers = asked(translate, ask, hosts=hosts_of("127.0.0.1", None))
    assert [answer.status_code for answer in answers] == [200, *[403] * 5, 200, 403, 200, 403]
    assert "is another site" in refused(answers[1], 403)
    assert refused(answers[4], 403).startswith("the request has no Host")
    assert refused(answers[5], 403).endswith("start it with hosts=[evil.example] if it is")


def test_the_names_of_a_server():
    assert hosts_of("0.0.0.0", None) is None
    assert "example.org" in hosts_of("0.0.0.0", ["Example.org"]) and "a" in hosts_of("127.0.0.1", "a")
    assert hosts_of("127.0.0.1", None) == hosts_of("localhost", None) == ("localhost", "127.0.0.1", "::1")
    assert "2001:db8::1" in hosts_of("::", ["2001:db8::1"])
    for name in ("https://a.example", "a.example:80", "a.example/p2p", "[::1]", 5, None):
        with pytest.raises(ValueError, match=r"is not valid: use names alone, as in hosts=\[p2p.example.org\]$"):
            hosts_of("0.0.0.0", [name])
    with pytest.raises(ValueError, match=r"^hosts=5 is not valid"):
        hosts_of("0.0.0.0", 5)


def test_the_interface_is_described(asked, translate):
    async def ask(client, app):
        return (await client.get("/openapi.json")).json(), await client.get("/docs"), await client.get("/metrics")

    description, docs, metrics = asked(translate, ask)
    post = description["paths"]["/translate"]["post"]
    assert {"image/png", "multipart/form-data"} <= set(post["requestBody"]["content"])
    assert {each["name"] for each in post["parameters"]} == {"size", "fit", "tile_stats", "restore_size", "format"}
    assert {"200", "400", "408", "413", "415", "422", "429", "503", "504"} <= set(post["responses"])
    assert set(description["paths"]) == {"/translate", "/healthz", "/metrics", "/model"}
    assert docs.status_code == 200 and "POST /translate" in docs.text and "model, input, tile" in docs.text
    names = set(re.findall(r"^# TYPE (\w+)", metrics.text, re.MULTILINE))
    assert {"p2p_requests_total", "p2p_images_total", "p2p_batch_images", "p2p_places_taken"} <= names


def test_what_the_page_draws_with(tmp_path, translate):
    flat = np.full((40, 40, 3), (255, 255, 255), np.uint8)
    flat[:10, :10], flat[20:, 20:] = (200, 30, 40), (20, 30, 200)
    Image.fromarray(flat).save(tmp_path / "flat.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    pairs = [Pair("flat", Source(tmp_path / "flat.png")), Pair("bad", Source(tmp_path / "bad.png"))]
    (frame,) = frames = samples.frames_of(translate, pairs)
    assert frame.shape == (32, 32, 3)
    assert list(samples.palette("auto", frames)) == ["#ffffff", "#141ec8", "#c81e28"]
    assert len(samples.palette("facades", [])) == 12 and "#ffffff" in samples.palette("auto", [])
    with pytest.raises(ValueError, match=r"^palette=maps is not known: use auto or facades$"):
        samples.palette("maps", [])
    four = not_exported(UNet(image_size=32, width=4, in_channels=4), channels=(4, 3))
    assert samples.frames_of(four, pairs) == [] and not samples.facts(four, "x", palette={}, count=0)["draws"]


def test_where_samples_come_from(tmp_path, pair_folder, translate):
    trained(tmp_path / "run", "data=folder", f"data.root={pair_folder}")
    of_run = samples.found(p2p.load(tmp_path / "run", device="cpu"), None)
    assert [(pair.name, pair.input.half) for pair in of_run] == [("0", "left"), ("1", "left"), ("2", "left")]
    shipped = samples.found(p2p.load("emoji", device="cpu"), None)
    assert len(shipped) == 8 and all(pair.input.half == "left" for pair in shipped)
    assert samples.found(translate, None) == []
    assert len(samples.found(translate, str(pair_folder / "train"))) == 4
    with pytest.raises(ValueError, match=r"^samples=.*nothing is not a folder"):
        samples.found(translate, str(tmp_path / "nothing"))


def test_it_ends_after_the_requests_that_it_has(translate):
    gate, told, made = threading.Event(), threading.Event(), []

    def service():
        made.append(Service(translate, Limits(**LIMITS), max_batch=8, max_wait_s=0.0))
        work = made[0]._batcher._work
        made[0]._batcher._work = lambda images, kind: gate.wait(30) and work(images, kind)
        return made[0]

    from p2p.serve import server

    servers = []
    start = server.Server.startup

    async def startup(self, sockets=None):
        servers.append(self)
        await start(self, sockets)

    with listen("127.0.0.1", 0) as listening, pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.Server, "startup", startup)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = app_of(service, facts={}, samples=[], hosts=None)
        thread = threading.Thread(target=run, args=(app, listening), kwargs={"timeout_s": 30, "ready": told.set})
        thread.start()
        assert told.wait(30)
        answers = []
        client = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/translate", content=file_of(picture(40, 40)), timeout=30))
        )
        client.start()
        while not made[0].places.taken:
            pass
        servers[0].handle_exit(signal.SIGTERM, None)
        gate.set()
        client.join(30)
        thread.join(30)
    assert not thread.is_alive() and image_in(answers[0]).size == (32, 32)


def test_connections_that_send_nothing_whole_are_closed():
    """Driven by hand, with a clock that does not run."""
    late = []

    class Loop:
        def call_later(self, seconds, close):
            late.append((seconds, close))
            return asyncio.Future(loop=loop)  # has cancel()

        def create_task(self, work, **_):
            work.close()
            return asyncio.Future(loop=loop)

    class Transport(asyncio.Transport):
        closed = 0

        def get_extra_info(self, name, default=None):
            return None

        def close(self):
            self.closed += 1

    loop = asyncio.new_event_loop()
    try:
        config = uvicorn.Config(lambda scope, receive, send: None, interface="asgi3", log_level="error", ws="none")
        made = partial(protocol(7), config, ServerState(), {}, Loop())
        silent, slow, asks = Transport(), Transport(), Transport()
        made().connection_made(silent)
        half, whole = made(), made()
        half.connection_made(slow)
        half.data_received(b"GET / HTTP/1.1\r\nHo")
        whole.connection_made(asks)
        whole.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody")
        assert [seconds for seconds, _ in late] == [7, 7, 7]
        for _, close in late:
            close()
        assert (silent.closed, slow.closed, asks.closed) == (1, 1, 0)
        whole.cycle.response_complete = True  # refused, and the client goes on
        whole.data_received(b"b")
        late[3][1]()
        assert asks.closed == 1
    finally:
        loop.close()


def test_a_port_in_use_and_an_address_of_another_machine():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ValueError, match=rf"^host=127.0.0.1 port={port} cannot be used: Address already in use: use"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(ValueError, match=r"^host=no.such.name.invalid is not an address of this machine"):
        listen("no.such.name.invalid", 0)
    with pytest.raises(ValueError, match=r"^host=192.0.2.1 port=8000 cannot be used: Cannot assign requested address"):
        listen("192.0.2.1", 8000)


def test_without_its_packages(monkeypatch):
    monkeypatch.setitem(serve.PACKAGES, "no_such_module", "no-such-package")
    with pytest.raises(ValueError, match=r"extra serve, which are not installed: pip install no-such-package$"):
        serve.check_installed()


def test_the_settings():
    cfg = p2p.compose(["emoji", "port=0", "hosts=[a.example]"], command="serve")
    assert (cfg.weights, cfg.port, cfg.host) == ("emoji", 0, "127.0.0.1")
    assert p2p.compose(["name=mine"], command="serve").weights == "runs/mine"
    assert p2p.compose(["a folder/run"], command="serve").weights == "a folder/run"
    for words, sentence in {
        "port=99999": "port=99999 is out of range: use 0 to 65535",
        "timeout_s=0": "timeout_s=0 is out of range: use 3600 or less and more than 0",
        "queue=many": "queue=many is not valid: use a whole number, such as the default, 64",
        "epochs=3": "epochs= is of train, and not of serve: leave it out",
    }.items():
        with pytest.raises(ValueError) as raised:
            p2p.compose([words], command="serve")
        assert str(raised.value) == sentence


@pytest.mark.slow
def test_the_command_serves_and_ends_at_ctrl_c(translate):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "p2p", "serve", "emoji", "port=0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        request = urllib.request.Request(f"{url}/translate", file_of(picture(256, 256)), {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = np.asarray(Image.open(answer))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "") and out.endswith("ended: 1 image translated\n")
    assert (found == np.asarray(p2p.load("emoji", device="cpu")(picture(256, 256)))).all()
