"""POST /translate gives what `p2p.load(...)(image)` gives, and refuses with a status and one sentence."""

import asyncio
import base64
import gc
import io
import struct
import tempfile
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from p2p.models.resnet import ResNet
from p2p.models.unet import UNet
from p2p.serve.formats import MEDIA
from tests.api.test_translating import not_exported
from tests.conftest import picture


def file_of(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def image_in(response):
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


QUERIES = {
    "": {},
    "?restore_size=true": {"restore_size": True},
    "?fit=pad&restore_size=true": {"fit": "pad", "restore_size": True},
    "?size=tile": {"size": "tile"},
    "?size=tile&tile_stats=image": {"size": "tile", "tile_stats": "image"},
}


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def refused(response, status):
    """The sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (sentence,) = response.json().values()
    assert "\n" not in sentence
    return sentence


def files():
    turned = Image.Exif()
    turned[0x0112] = 6
    transparent = picture(45, 45).convert("RGBA")
    transparent.putalpha(picture(45, 45, seed=3).convert("L"))
    yield "turned", file_of(picture(60, 33), "JPEG", exif=turned)
    yield "transparent", file_of(transparent)
    yield "palette", file_of(picture(45, 40).convert("P"))
    yield "grey", file_of(picture(45, 40).convert("L"))
    yield "cmyk", file_of(picture(45, 40).convert("CMYK"), "JPEG")
    yield "sixteen", file_of(Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50) * 30))
    yield "webp", file_of(picture(45, 40), "WEBP")


@pytest.mark.parametrize(("name", "data"), files(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_bits_of_p2p_load(post, translate, tmp_path, name, data):
    (tmp_path / "file").write_bytes(data)
    for query, options in QUERIES.items():
        with image_in(post(translate, data, query=query)) as found:
            expected = translate(tmp_path / "file", **options)
            assert (found.mode, found.size) == (expected.mode, expected.size)
            assert found.tobytes() == expected.tobytes()


def test_images_that_arrive_together_are_one_batch_with_the_same_bits(asked, translate):
    images = [picture(40 + number, 50, seed=number) for number in range(6)]
    seen = []
    generate = type(translate).translate

    def watched(self, prepared, **options):
        seen.append(len(prepared))
        return generate(self, prepared, **options)

    async def ask(client, app):
        app.state.service._batcher._work = lambda images, kind: list(
            watched(translate, images, restore_size=kind[1], batch_size=8)
        )
        return await asyncio.gather(*(client.post("/translate", content=file_of(image)) for image in images))

    for image, response in zip(images, asked(translate, ask, max_wait_s=20.0, max_batch=6), strict=True):
        assert response.headers["x-batch"] == "6"
        with image_in(response) as found:
            assert found.tobytes() == translate(image).tobytes()
    assert seen == [6]


@pytest.mark.parametrize(("least", "most", "batch"), [(1, None, 3), (1, 2, 2), (5, 5, 5)])
def test_batches_are_those_of_the_program(asked, translate, least, most, batch):
    async def ask(client, app):
        data = file_of(picture(32, 32))
        return await asyncio.gather(*(client.post("/translate", content=data) for _ in range(batch)))

    answers = asked(replace(translate, min_batch=least, max_batch=most), ask, max_batch=3, max_wait_s=20.0)
    assert {answer.headers["x-batch"] for answer in answers} == {str(batch)}


def test_several_in_a_form_and_one_that_is_none(asked, translate):
    data = file_of(picture(50, 40))

    async def ask(client, app):
        parts = [("image", ("../../etc/passwd", each, "text/plain")) for each in (data, b"no image", data[:200])]
        several = await client.post("/translate", files=parts)
        one = await client.post("/translate", files=parts[:1])
        return several, one, app.state.service.metrics.text().decode()

    several, one, metrics = asked(translate, ask)
    first, second, third = several.json()["images"]
    expected = translate(picture(50, 40)).tobytes()
    assert first["type"] == "image/png"
    assert Image.open(io.BytesIO(base64.b64decode(first["data"]))).tobytes() == expected
    assert second == {"error": "cannot translate images[1]: it is not an image", "status": 415}
    assert third["error"].startswith("cannot translate images[2]: it is damaged: ") and third["status"] == 422
    assert image_in(one).tobytes() == expected
    assert 'p2p_images_total{outcome="translated"} 2.0' in metrics
    assert 'p2p_images_total{outcome="failed"} 2.0' in metrics
    assert 'p2p_requests_total{status="200"} 2.0' in metrics


def test_formats(post, translate):
    data = file_of(picture(50, 40))
    expected = np.asarray(translate(picture(50, 40)))
    for format in ("png", "webp", "tiff", "jpg"):
        response = post(translate, data, query=f"?format={format}")
        assert response.headers["content-type"] == MEDIA[format]
        found = np.asarray(image_in(response))
        if format in ("png", "tiff"):
            assert (found == expected).all()
        else:  # as Pillow alone writes it
            by_pillow = file_of(Image.fromarray(expected), MEDIA[format].partition("/")[2], quality=96, subsampling=0)
            assert np.abs(np.asarray(Image.open(io.BytesIO(by_pillow))).astype(int) - found).mean() < 1
    array = np.load(io.BytesIO(post(translate, data, query="?format=npy").content))
    assert (array == expected).all()
    floats = np.asarray(picture(32, 32), np.float32) / 255
    found = np.load(io.BytesIO(post(translate, npy(floats), kind="application/octet-stream").content))
    assert found.dtype == np.float32 and (found == translate(floats)).all()
    assert refused(post(translate, npy(floats), query="?format=jpg"), 422) == (
        "format=jpg cannot hold an output of 3 channels of float32: use format=npy"
    )


def test_grey_and_four_channels(post):
    grey = not_exported(UNet(image_size=32, width=4, in_channels=1, out_channels=1), channels=(1, 1))
    with image_in(post(grey, file_of(picture(50, 40)))) as found:
        assert found.mode == "L" and found.tobytes() == grey(picture(50, 40)).tobytes()
    four = not_exported(UNet(image_size=32, width=4, in_channels=4, out_channels=4), channels=(4, 4))
    array = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    response = post(four, npy(array), kind="application/octet-stream")
    assert (np.load(io.BytesIO(response.content)) == four(array)).all()
    assert "channels" in refused(post(four, file_of(picture(50, 40))), 422)


def test_any_size(post):
    model = not_exported(ResNet(width=4, blocks=1))
    data = file_of(picture(60, 44))
    with image_in(post(model, data, query="?size=input")) as found:
        assert found.size == (60, 44) and found.tobytes() == model(picture(60, 44), size="input").tobytes()
    sentence = refused(post(model, data, query="?size=input", max_pixels_whole=99), 413)
    assert sentence.endswith("this server takes 99 at most: send a smaller one, or use size=tile")


def bomb(width, height):
    """A PNG of that size in its header, and of next to no bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_what_is_refused(post, translate):
    data = file_of(picture(50, 40))
    assert refused(post(translate, b""), 400) == "cannot translate the image: there are no bytes"
    assert refused(post(translate, b"no image"), 415) == "cannot translate the image: it is not an image"
    assert refused(post(translate, data[:-500]), 422).startswith("cannot translate the image: it is damaged: ")
    assert "Content-Type: text/html is no image" in refused(post(translate, data, kind="text/html"), 415)
    assert refused(post(translate, bomb(60000, 60000)), 413) == (
        "the image has 60000x60000 pixels, and this server takes 1,048,576 at most: send a smaller one"
    )
    assert refused(post(translate, npy(np.zeros((1200, 1200), np.uint8))), 413).startswith("the image has 1200x1200")
    assert refused(post(translate, b"x" * 2000, max_bytes=1000), 413).startswith("the body has more than 1,000 bytes")
    assert refused(post(translate, data, query="?size=huge"), 400) == (
        "size=huge is not known: use model, input or tile"
    )
    assert refused(post(translate, data, query="?restore_size=3"), 400) == (
        "restore_size=3 is not known: use true or false"
    )
    assert refused(post(translate, data, query="?fit=pad&size=tile"), 400).startswith("fit=pad applies only to")
    assert len(refused(post(translate, data, query=f"?size={'x' * 3000}%0a"), 400)) < 200
    claims = npy(np.zeros((9, 9, 3), np.uint8)).replace(b"(9, 9, 3), }        ", b"(99999, 99999, 3), }")
    assert refused(post(translate, claims), 422) == (
        "cannot translate the image: it is damaged: its header promises 29,999,400,003 bytes, and 243 follow"
    )
    assert "format=gif is not known: use png, jpg" in refused(post(translate, data, query="?format=gif"), 400)
    assert "sise= is not a setting" in refused(post(translate, data, query="?sise=tile"), 400)
    assert refused(post(translate, data, query="?size=input"), 400).startswith("size=input needs a program that takes")
    assert "applies only to size=model" in refused(post(translate, data, query="?size=tile&restore_size=true"), 400)


def test_bodies_that_are_refused(asked, translate):
    async def ask(client, app):
        async def endless():
            for _ in range(100):
                yield b"x" * 100

        async def slow():
            yield b"x"
            await asyncio.sleep(60)

        form = {"content-type": "multipart/form-data; boundary=b"}
        return [
            await client.post("/translate", content=endless()),  # no Content-Length
            await client.post("/translate", content=slow()),
            await client.post("/translate", files=[("image", b"x")] * 9),
            await client.post("/translate", files={"image": b"x"}, data={"size": "tile"}),
            await client.post("/translate", content=b"--b\r\nno header\r\n", headers=form),
            await client.post("/translate", content=b"--b--\r\n", headers=form),
            await client.post("/translate", content=b"x", headers={"content-type": "multipart/form-data"}),
            await client.get("/translate"),
            await client.get("/samples/x.png"),
            await client.get("/../../etc/passwd"),
            await client.get("/samples/..%2f..%2fetc%2fpasswd.png"),
        ], app.state.service.places.taken

    answers, taken = asked(translate, ask, max_bytes=2000, timeout_s=0.3)
    for answer, status in zip(answers, (413, 408, 413, 400, 400, 400, 400, 405, 404, 404, 404), strict=True):
        refused(answer, status)
    assert taken == 0 and answers[7].headers["allow"] == "POST"


def test_head_is_get_without_a_body(asked, translate):
    async def ask(client, app):
        return [await client.head("/healthz"), await client.get("/healthz"), await client.head("/translate")]

    head, get, refused = asked(translate, ask)
    assert (head.status_code, head.headers) == (200, get.headers) and refused.status_code == 405


def test_a_full_queue_says_so_and_loses_nothing(asked, translate):
    gate, data = threading.Event(), file_of(picture(50, 40))

    async def ask(client, app):
        service = app.state.service
        work = service._batcher._work
        service._batcher._work = lambda images, kind: gate.wait(30) and work(images, kind)
        waiting = [asyncio.create_task(client.post("/translate", content=data)) for _ in range(3)]
        while service.places.taken < 3:
            await asyncio.sleep(0.001)
        full = await client.post("/translate", content=data)
        gate.set()
        return full, await asyncio.gather(*waiting), await client.post("/translate", content=data)

    full, waiting, later = asked(translate, ask, queue=3)
    assert refused(full, 429).startswith("all 3 places are taken: try again")
    assert full.headers["retry-after"] == "1"
    assert [each.status_code for each in (*waiting, later)] == [200] * 4


def test_what_takes_too_long(asked, translate):
    gate = threading.Event()

    async def ask(client, app):
        app.state.service._batcher._work = lambda images, kind: gate.wait(30)
        answer = await client.post("/translate", content=file_of(picture(50, 40)))
        gate.set()
        return answer, app.state.service.places.taken

    answer, taken = asked(translate, ask, timeout_s=0.2)
    assert refused(answer, 504) == "it took more than 0.2 s: try again, or with less" and taken == 0


def test_a_client_that_has_gone_frees_its_place(asked, translate):
    gate = threading.Event()

    async def ask(client, app):
        service, sent = app.state.service, []
        service._batcher._work = lambda images, kind: gate.wait(30)
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": file_of(picture(50, 40)), "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/translate", "raw_path": b"/translate", "headers": []}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("x", 1)}
        unseen = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
        tasks = [asyncio.create_task(app(scope, receive, send))]
        while not service.places.taken:
            await asyncio.sleep(0.001)
        gone.set()
        await asyncio.wait_for(tasks[0], 20)
        gc.collect()
        assert unseen == []  # "exception was never retrieved", in the log
        taken = service.places.taken
        gate.set()
        return taken, len(service._batcher), sent[0]["status"]

    assert asked(translate, ask) == (0, 0, 499)


def test_the_end_of_the_server_is_told(asked, translate):
    begun, gate = threading.Event(), threading.Event()

    def slow(images, kind):
        begun.set()
        gate.wait(30)
        return images

    async def ask(client, app):
        app.state.service._batcher._work = slow
        waiting = asyncio.create_task(client.post("/translate", content=file_of(picture(50, 40))))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        waiting.cancel()  # as uvicorn does at a second Ctrl-C
        gate.set()
        return await waiting

    assert refused(asked(translate, ask), 503) == "the server was stopped before the image was translated"


def test_the_network_fails_for_one_image(asked, caplog):
    model = not_exported(UNet(image_size=32, width=4))
    network = model.network

    def fails(input_NCHW):
        if (input_NCHW == 1).all(dim=(1, 2, 3)).any():
            raise RuntimeError("of white images")
        return network(input_NCHW)

    model.network = fails
    images = [picture(32, 32), Image.new("RGB", (32, 32), "white"), picture(32, 32, seed=1)]

    async def ask(client, app):
        return await asyncio.gather(*(client.post("/translate", content=file_of(image)) for image in images))

    first, white, last = asked(model, ask, max_wait_s=20.0, max_batch=3)
    assert first.headers["x-batch"] == "3" and image_in(last).tobytes() == model(images[2]).tobytes()
    assert refused(white, 500) == "cannot translate the image: the network failed, see the server's log"
    assert "of white images" in caplog.text


def test_a_gpu_that_has_failed_is_not_healthy(asked):
    model = not_exported(UNet(image_size=32, width=4))

    def fails(input_NCHW):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    model.network = fails

    async def ask(client, app):
        healthy = await client.get("/healthz")
        data = file_of(picture(32, 32))
        return healthy, *[await client.post("/translate", content=data) for _ in range(2)], await client.get("/healthz")

    healthy, first, second, ill = asked(model, ask)
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
    assert "illegal memory access" in refused(first, 503) and "illegal memory access" in refused(second, 503)
    assert "illegal memory access" in refused(ill, 503)


def test_no_upload_reaches_the_disk(asked, translate, monkeypatch):
    def to_disk(self):
        raise AssertionError("an upload was written to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", to_disk)
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    data = file_of(Image.fromarray(noise))
    assert len(data) > 1 << 20

    async def ask(client, app):
        return await client.post("/translate", files={"image": data})

    assert image_in(asked(translate, ask)).size == (32, 32)
