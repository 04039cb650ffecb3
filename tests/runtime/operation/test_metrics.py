"""The metrics, as Prometheus' own parser reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sshr_deploy.runtime.machine.nvml import GpuState
from sshr_deploy.runtime.operation import metrics as module
from sshr_deploy.runtime.operation.events import Code
from sshr_deploy.runtime.operation.health import Health
from sshr_deploy.runtime.operation.metrics import Metrics
from tests.runtime.operation.events import DONE, SLIDE, event


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[GpuState]:
    here: list[GpuState] = []
    monkeypatch.setattr(module, "gpu_states", lambda: here)
    return here


def values(metrics: Metrics) -> dict[str, float]:
    """By name and labels, "sshr_queue_slides{waiting}"."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_slides_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    metrics = Metrics(Health())
    for _ in range(2):
        metrics(event(Code.SLIDE_DONE, SLIDE, **DONE))
    metrics(event(Code.SLIDE_DONE, SLIDE, **DONE, earlier=True))
    metrics(event(Code.SLIDE_FAILED, failure="no_mpp"))
    metrics(event(Code.SLIDE_QUARANTINED, failure="input"))
    now = values(metrics)
    assert now["sshr_slides_done_total"] == 2
    assert now["sshr_slides_last_hour"] == 2
    assert now["sshr_tissue_mm2_total"] == 25
    assert now["sshr_slides_failed_total{no_mpp}"] == now["sshr_slides_failed_total{input}"] == 1
    assert now["sshr_events_total{slide_done}"] == 3
    assert (now["sshr_slide_seconds_count"], now["sshr_slide_seconds_sum"]) == (2, 80)
    assert now["sshr_turnaround_seconds_sum"] == 400
    assert now["sshr_turnaround_seconds_bucket{120.0}"] == 0
    assert now["sshr_turnaround_seconds_bucket{300.0}"] == 2


def test_facts_that_are_missing_are_not_counted() -> None:
    metrics = Metrics(Health())
    metrics(event(Code.SLIDE_DONE, seconds=None, tissue_mm2=None))
    now = values(metrics)
    assert now["sshr_slides_done_total"] == 1
    assert now["sshr_slide_seconds_count"] == now["sshr_tissue_mm2_total"] == 0


def test_state_is_that_of_the_moment(tmp_path: Path, gpus: list[GpuState]) -> None:
    health = Health()
    metrics = Metrics(health)
    health.serves(tmp_path, lambda: {"waiting": 3, "failed": 1})
    health(event(Code.SLIDE_STARTED))
    gpus.append(GpuState(0, "NVIDIA A", "GPU-1", 4 << 30, 16 << 30, 61, 0.97))
    gpus.append(GpuState(1, "NVIDIA B", "GPU-2", None, None, None, None))
    now = values(metrics)
    assert now["sshr_up"] == now["sshr_slides_running"] == 1
    assert now["sshr_queue_slides{waiting}"] == 3
    assert now["sshr_disk_free_bytes"] > 0
    assert now["sshr_gpu_memory_used_bytes{0,NVIDIA A,GPU-1}"] == 4 << 30
    assert now["sshr_gpu_temperature_celsius{0,NVIDIA A,GPU-1}"] == 61
    assert not any("GPU-2" in name for name in now)


def test_two_of_them_count_apart() -> None:
    one, other = Metrics(Health()), Metrics(Health())
    one(event(Code.SLIDE_DONE))
    assert values(other)["sshr_slides_done_total"] == 0


def test_slides_of_the_last_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(Health())
    metrics(event(Code.SLIDE_DONE))
    monkeypatch.setattr(module, "_HOUR_S", -1.0)
    assert values(metrics)["sshr_slides_last_hour"] == 0
