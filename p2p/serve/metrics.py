"""What Prometheus sees of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server; several in a process do not know of each other."""

    def __init__(self, *, taken: Callable[[], int], places: int):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("p2p_requests", "Requests of /translate, by status of HTTP.", ["status"], **of)
        self.images = Counter("p2p_images", "Images of requests, by what became of them.", ["outcome"], **of)
        self.request_seconds = Histogram("p2p_request_seconds", "Of a request.", buckets=SECONDS, **of)
        self.network_seconds = Histogram("p2p_network_seconds", "Of a batch in the network.", buckets=SECONDS, **of)
        self.batch_images = Histogram("p2p_batch_images", "Images of a batch.", buckets=IMAGES, **of)
        Gauge("p2p_places_taken", "Images in the server.", **of).set_function(taken)
        Gauge("p2p_places", "Images that the server takes at a time.", **of).set(places)
        for outcome in ("translated", "failed"):
            self.images.labels(outcome)  # there from the start, as 0

    def batch(self, images: int, seconds: float) -> None:
        """A batch went through the network."""
        self.batch_images.observe(images)
        self.network_seconds.observe(seconds)

    def translated(self) -> int:
        """Images so far."""
        return int(self.registry.get_sample_value("p2p_images_total", {"outcome": "translated"}) or 0)

    def text(self) -> bytes:
        """In the format of Prometheus, version 0.0.4."""
        return generate_latest(self.registry)
