"""What the server tells Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """All metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("pemt_requests", "Requests that were answered", ["path", "status"], registry=registry)
        self.request_seconds = Histogram(
            "pemt_request_seconds", "From a request to its answer", ["path"], buckets=_SECONDS, registry=registry
        )
        self.rows = Counter("pemt_rows", "Rows that were answered", ["target"], registry=registry)
        self.batch_rows = Histogram("pemt_batch_rows", "Rows answered together", buckets=_ROWS, registry=registry)
        self.batch_seconds = Histogram(
            "pemt_batch_seconds", "Time in the model of a batch", buckets=_SECONDS, registry=registry
        )
        self.queue_rows = Gauge("pemt_queue_rows", "Rows that wait for the model", registry=registry)
        self.versions = Gauge("pemt_target_version", "The version that answers", ["target"], registry=registry)
        self.failures = Counter(
            "pemt_target_load_failures", "Versions that could not be loaded", ["target"], registry=registry
        )
        self.registry_reached = Gauge(
            "pemt_registry_reached", "1 if the last look at the registry succeeded, otherwise 0", registry=registry
        )

    def follow_queue(self, num_rows: Callable[[], int]) -> None:
        """Report `num_rows` as the length of the queue."""
        self.queue_rows.set_function(num_rows)

    def batch_answered(self, rows: int, seconds: float) -> None:
        """Record a batch."""
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
