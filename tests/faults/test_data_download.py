"""What web servers can answer in place of the archive that was asked for."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from p2p.data.download import download

DATA = bytes(range(256)) * 40


@pytest.fixture
def answer(monkeypatch):
    """A function: what to answer, one after another (status, headers, body) -> the address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answers, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Range"))
            status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def serve(*given):
        answers[:] = given
        return f"http://127.0.0.1:{http.server_port}/a.tar.gz", asked

    yield serve
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.mark.parametrize("length", ["abc", "-5", "", "1e3", "٣"])
def test_a_length_that_is_none_is_as_none(tmp_path, answer, length):
    url, _ = answer((200, {"Content-Length": length.encode().decode("latin-1")}, DATA))
    download(url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.parametrize("range_", ["bytes 0-99/10240", "bytes abc", "", None])
def test_another_part_than_was_asked_for_is_not_appended(tmp_path, answer, range_):
    (tmp_path / "x").write_bytes(DATA[:100])
    headers = {} if range_ is None else {"Content-Range": range_}
    url, asked = answer((206, headers, DATA[:100]), (200, {"Content-Length": str(len(DATA))}, DATA))
    download(url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert asked == ["bytes=100-", None]


def test_a_part_that_nobody_asked_for(tmp_path, answer):
    url, _ = answer((206, {"Content-Range": "bytes 5-9/10240"}, DATA[5:10]))
    with pytest.raises(ValueError, match=r"cannot be downloaded \(the server sends another part than was asked for\)"):
        download(url, tmp_path / "x", attempts=2)
    assert not (tmp_path / "x").exists()


def test_a_page_is_no_archive(tmp_path, answer):
    url, _ = answer((200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>moved</html>"))
    with pytest.raises(ValueError, match=r"a\.tar\.gz is a web page, not an archive: open it in a browser"):
        download(url, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/a.tar.gz", "the server says 302 .*infinite loop"),
        ("file:///etc/passwd", "the server says 302 .*not allowed"),
        ("http://127.0.0.1:port/", "cannot be downloaded|is not a valid address"),
        ("http://[::1/", "is not a valid address: Invalid IPv6 URL"),
    ],
)
def test_redirects_that_lead_nowhere(tmp_path, answer, location, message):
    url, _ = answer((302, {"Location": location, "Content-Length": "0"}, b""))
    with pytest.raises(ValueError, match=message) as raised:
        download(url, tmp_path / "x")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("url", ["nowhere/a.tar.gz", "http://[::1/a.tar.gz", "gopher://x/a.tar.gz"])
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(ValueError, match=r"is not a valid address|cannot be downloaded \(unknown url type"):
        download(url, tmp_path / "x")
