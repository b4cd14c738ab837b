"""examples/triton_client.py against a stand-in that speaks the protocol and negates images."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, picture

pytest.importorskip("tritonclient.http", reason="needs the extra triton")


class Negative(BaseHTTPRequestHandler):
    """KServe v2 with binary tensors: a JSON header, whose length is a header of HTTP, and then the bytes."""

    protocol_version = "HTTP/1.1"
    dims = ("48", "64", "3")

    def do_GET(self):
        assert self.path == "/v2/models/mine/config"
        self.answer(json.dumps({"input": [{"dims": self.dims}]}).encode())

    def do_POST(self):
        assert self.path == "/v2/models/mine/infer"
        length = int(self.headers["Inference-Header-Content-Length"])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        [tensor] = json.loads(body[:length])["inputs"]
        frames = np.frombuffer(body[length:], np.uint8).reshape(tensor["shape"])
        assert (tensor["name"], tensor["datatype"], len(frames)) == ("input_NHWC", "UINT8", 1)
        assert -1 in map(int, self.dims) or frames.shape[1:] == tuple(map(int, self.dims))
        output = {"name": "output_NHWC", "datatype": "UINT8", "shape": tensor["shape"]}
        output["parameters"] = {"binary_data_size": frames.size}
        self.answer(json.dumps({"outputs": [output]}).encode(), (255 - frames).tobytes())

    def answer(self, header, data=b""):
        self.send_response(200)
        self.send_header("Content-Length", str(len(header) + len(data)))
        if data:
            self.send_header("Inference-Header-Content-Length", str(len(header)))
        self.end_headers()
        self.wfile.write(header + data)

    def log_message(self, *words):
        pass


@pytest.fixture
def client():
    spec = importlib.util.spec_from_file_location("triton_client", ROOT / "examples" / "triton_client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_images_of_one_stem_are_kept_apart(client, tmp_path, monkeypatch, capsys):
    found = client.named([Path("a.png"), Path("x/a.jpg"), Path("b.jpg")], Path("out"))
    assert found == [Path("out/a.png.png"), Path("out/a.jpg.png"), Path("out/b.png")]
    for images, why in (
        (["x/a.png", "y/a.png"], "the answers to x/a.png and y/a.png would both be out/a.png.png"),
        (["out/a.png", "b.png"], "the answer to out/a.png would replace an image that is sent, out/a.png"),
    ):
        monkeypatch.setattr("sys.argv", ["client", "mine", "out", *images])
        with pytest.raises(SystemExit, match="2"):
            client.main()
        assert why in capsys.readouterr().err


@pytest.mark.parametrize(("dims", "size"), [(("48", "64", "3"), (64, 48)), (("-1", "-1", "3"), (80, 40))])
def test_every_image_comes_back_under_its_name(client, tmp_path, monkeypatch, dims, size):
    paths = [tmp_path / f"{index}.png" for index in range(10)]  # more than are under way at once
    for index, path in enumerate(paths):
        picture(80, 40, seed=index).save(path)
    monkeypatch.setattr(Negative, "dims", dims)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Negative)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = ["client", "mine", str(tmp_path / "out"), *map(str, paths), f"--url=127.0.0.1:{server.server_port}"]
    monkeypatch.setattr("sys.argv", words)
    try:
        client.main()
    finally:
        server.shutdown()
        server.server_close()
    for path in paths:
        with Image.open(path) as image:
            expected = 255 - np.array(image.resize(size, Image.Resampling.BICUBIC))
        with Image.open(tmp_path / "out" / path.name) as output:
            assert np.array_equal(np.array(output), expected)
