#!/usr/bin/env python3
"""How many images a second does `p2p serve` answer, how long does a client wait, and does memory grow?

    python -m benchmarks.serving [--weights emoji] [--clients 64] [--images 512] [--rounds 3] [--output FILE]

Two servers, with batches of 1 and of 8, run at the same time and are measured in turns: with one client, which sends
its next image after the last answer, and with many clients at once. Every answer is compared with the first one of its
image. In the end a server with a queue of 16 images is measured. Its clients try again after status 429, and no image
may be lost.
"""

import argparse
import http.client
import itertools
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.record import ROOT, commit, head
from p2p import shipped
from p2p.codecs.fast import Fast
from p2p.codecs.pillow import decode
from p2p.data.images import read_input
from p2p.data.splits import find_split
from p2p.system import atomic

BUSY = 429
PAUSE_S = 0.05  # before a client that was refused tries again


@contextmanager
def server(weights: str, *settings: str):
    """`p2p serve` in a process of its own: its address and its process id."""
    command = [sys.executable, "-m", "p2p", "serve", weights, "port=0", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield re.search(r"http://(\S+)", process.stdout.readline())[1], process.pid
    finally:
        process.terminate()
        process.wait(60)


class Client(threading.local):
    """A connection of each thread, which is kept."""

    def __init__(self) -> None:
        self.connections: dict[str, http.client.HTTPConnection] = {}

    def ask(self, address: str, data: bytes) -> tuple[bytes, int]:
        """The answer, and how often the server was full before."""
        place = urlsplit(f"//{address}")
        connection = self.connections.setdefault(address, http.client.HTTPConnection(place.hostname, place.port))
        for refused in itertools.count():
            connection.request("POST", "/translate", data, {"Content-Type": "image/png"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != BUSY:
                assert response.status == 200, answer
                return answer, refused
            time.sleep(PAUSE_S)


def load(address: str, files: list[bytes], expected: list[bytes], *, clients: int, images: int) -> dict[str, float]:
    """Ask for so many images by so many clients, and measure."""
    client, refusals = Client(), []

    def one(number: int) -> float:
        start = time.perf_counter()
        answer, refused = client.ask(address, files[number % len(files)])
        seconds = time.perf_counter() - start
        assert answer == expected[number % len(files)], f"image {number} has other bytes"
        refusals.append(refused)
        return seconds

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        waits = sorted(threads.map(one, range(images)))
    wall = time.perf_counter() - start
    assert len(waits) == images
    p50, p99 = (1000 * float(np.percentile(waits, share)) for share in (50, 99))
    return {"images_per_s": images / wall, "p50_ms": p50, "p99_ms": p99, "refused": sum(refusals)}


def resident_mb(pid: int) -> float:
    """Of a process."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="emoji", help="what is served")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--images", type=int, default=512, help="of each row and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/serving.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()
    pairs, _ = find_split(shipped.SAMPLES, "val", key="val", direction="AtoB")
    files = [Fast(format="png").encode(read_input(pair, decode)) for pair in pairs]
    common = (f"device={options.device}", f"queue={2 * options.clients}", "timeout_s=600")
    rows: dict[tuple[int, int], list[dict[str, float]]] = {}
    memory: dict[str, list[float]] = {"max_batch=1": [], "max_batch=8": []}
    with (
        server(options.weights, "max_batch=1", *common) as one,
        server(options.weights, "max_batch=8", *common) as many,
    ):
        expected = [Client().ask(one[0], data)[0] for data in files]
        for _ in range(options.rounds):
            for clients, (batch, (address, pid)) in itertools.product((1, options.clients), ((1, one), (8, many))):
                images = options.images if clients > 1 else max(16, options.images // 8)
                row = load(address, files, expected, clients=clients, images=images)
                rows.setdefault((clients, batch), []).append(row)
                memory[f"max_batch={batch}"].append(round(resident_mb(pid), 1))
                print(clients, batch, {key: round(value, 1) for key, value in row.items()}, flush=True)
    with server(options.weights, "max_batch=8", "queue=16", f"device={options.device}", "timeout_s=600") as (few, _):
        full = load(few, files, expected, clients=options.clients, images=options.images)
    print("queue=16", full)
    table = [
        {"clients": clients, "max_batch": batch}
        | {key: round(statistics.median(each[key] for each in runs), 1) for key in runs[0]}
        | {"runs_images_per_s": [round(each["images_per_s"], 1) for each in runs]}
        for (clients, batch), runs in rows.items()
    ]
    for row in table:
        print(row)
    print("resident MB after each row:", memory)
    facts = {"weights": options.weights, "device": options.device, "images": options.images, "rows": table}
    facts |= {"resident_mb": memory, "queue_16": {key: round(value, 1) for key, value in full.items()}}
    packages = ("torch", "fastapi", "uvicorn", "pillow")
    atomic.write(options.output, json.dumps(head(options.commit, *packages) | facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
