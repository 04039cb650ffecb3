"""Metrics for Prometheus."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sshr_deploy.runtime.machine.nvml import gpu_states
from sshr_deploy.runtime.operation.events import Code, Event
from sshr_deploy.runtime.operation.health import Health
from sshr_deploy.version import __version__

_MINUTE_S = 60.0
_SLIDE_BUCKETS_S = tuple(_MINUTE_S * m for m in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120))
_TURNAROUND_BUCKETS_S = tuple(
    _MINUTE_S * m for m in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 960, 1440)
)
_HOUR_S = 3600.0


class Metrics:
    """Counts events; a listener of `Events`."""

    def __init__(self, health: Health) -> None:
        self._registry = CollectorRegistry()
        self._events = self._counter("events", "Events by code.", "code")
        self._done = self._counter("slides_done", "Slides and images that were computed.")
        self._failed = self._counter("slides_failed", "Failures by kind, each attempt.", "failure")
        self._tissue = self._counter("tissue_mm2", "Tissue segmented, in mm2.")
        self._seconds = Histogram(
            "sshr_slide_seconds",
            "Computing time of a slide.",
            registry=self._registry,
            buckets=_SLIDE_BUCKETS_S,
        )
        self._turnaround = Histogram(
            "sshr_turnaround_seconds",
            "From the slide's last write to its overlay.",
            registry=self._registry,
            buckets=_TURNAROUND_BUCKETS_S,
        )
        self._state = _State(health)
        self._registry.register(self._state)

    def __call__(self, event: Event) -> None:
        """Count an event; for any thread."""
        facts = event.facts
        self._events.labels(event.code.value).inc()
        if event.code in (Code.SLIDE_FAILED, Code.SLIDE_QUARANTINED):
            self._failed.labels(str(facts.get("failure"))).inc()
        if event.code is not Code.SLIDE_DONE or facts.get("earlier"):
            return
        self._done.inc()
        self._state.count_done()
        for name, add in (
            ("tissue_mm2", self._tissue.inc),
            ("seconds", self._seconds.observe),
            ("turnaround_s", self._turnaround.observe),
        ):
            value = facts.get(name)
            if isinstance(value, int | float) and value >= 0:
                add(value)

    def text(self) -> bytes:
        """All of them in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"sshr_{name}", what, labels, registry=self._registry)


class _State(Collector):
    """What is read at the moment when somebody asks."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._lock, self._done_s = Lock(), deque[float]()

    def count_done(self) -> None:
        """A slide is done now."""
        with self._lock:
            self._done_s.append(time.monotonic())

    def describe(self) -> Iterable[Metric]:
        """Nothing before somebody asks."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """State of the service, then of its GPUs."""
        report = self._health.report()
        yield _gauge("up", "1 while the service gives signs of life.", report.works)
        yield _gauge("silent_seconds", "Since its last sign of life.", report.silent_s)
        yield _gauge("problems", "Lost folders, a full disk, silence.", len(report.problems))
        yield _gauge("slides_running", "Slides under way.", report.running)
        yield _gauge("slides_last_hour", "Slides done in the last hour.", self._last_hour())
        if report.disk_free_bytes is not None:
            free = report.disk_free_bytes
            yield _gauge("disk_free_bytes", "Free space where results go.", free)
        queue = GaugeMetricFamily("sshr_queue_slides", "Slides by state.", labels=["state"])
        for state, count in report.queue.items():
            queue.add_metric([state], count)
        yield queue
        info = GaugeMetricFamily("sshr_info", "Always 1.", labels=["version", "engine"])
        info.add_metric([__version__, report.engine or ""], 1)
        yield info
        yield from _gpu_metrics()

    def _last_hour(self) -> int:
        with self._lock:
            while self._done_s and time.monotonic() - self._done_s[0] > _HOUR_S:
                self._done_s.popleft()
            return len(self._done_s)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sshr_{name}", what, value=value)


def _gpu_metrics() -> list[Metric]:
    used, total, temperature, utilisation = families = [
        GaugeMetricFamily(f"sshr_gpu_{name}", what, labels=["gpu", "name", "uuid"])
        for name, what in (
            ("memory_used_bytes", "Memory of the GPU in use, by all programs."),
            ("memory_bytes", "Memory of the GPU."),
            ("temperature_celsius", "Temperature of the GPU."),
            ("utilisation_ratio", "Share of the last second or so in which the GPU computed."),
        )
    ]
    for gpu in gpu_states():
        for family, value in (
            (used, gpu.memory_used_bytes),
            (total, gpu.memory_total_bytes),
            (temperature, gpu.temperature_celsius),
            (utilisation, gpu.utilisation),
        ):
            if value is not None:
                family.add_metric([str(gpu.index), gpu.name, gpu.uuid], value)
    return list(families)
