"""Joules from folders and counters as the systems have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.throughput.energy import EnergyMeter
from sshr_deploy.runtime.machine.nvml import GpuLoad

GPU = GpuLoad(0, 60, 1500, 7000, 200.0, 1000.0, ())


def _zone(folder: Path, name: str, microjoules: int, most: int = 10_000_000) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / "energy_uj"


def test_packages_are_summed_without_their_parts_and_counters_go_round(tmp_path: Path) -> None:
    first = _zone(tmp_path / "intel-rapl:0", "package-0", 9_000_000)
    second = _zone(tmp_path / "intel-rapl:1", "package-1", 1_000_000)
    core = _zone(tmp_path / "intel-rapl:0:0", "core", 0)
    whole = _zone(tmp_path / "intel-rapl:2", "psys", 0)
    meter = EnergyMeter(tmp_path, gpus=lambda: [])
    assert (meter.unreadable, meter.joules()) == ([], {"cpu": 0.0})
    for file, microjoules in ((first, 9_500_000), (second, 3_000_000), (core, 99), (whole, 99)):
        file.write_text(str(microjoules))
    assert meter.joules() == {"cpu": pytest.approx(2.5)}
    first.write_text("500000")  # beyond 10 J it has begun again
    assert meter.joules() == {"cpu": pytest.approx(3.5)}
    assert meter.joules() == {"cpu": pytest.approx(3.5)}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "needs root since 2020, see CVE-2020-8694"),
        (OSError(61, "No data available"), "No data available"),
    ],
)
def test_a_counter_that_cannot_be_read_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    file = _zone(tmp_path / "intel-rapl:0", "package-0", 0)
    real = Path.read_text

    def read(path: Path, *args: str) -> str:
        if path == file:
            raise error
        return real(path, *args)

    monkeypatch.setattr(Path, "read_text", read)
    meter = EnergyMeter(tmp_path, gpus=lambda: [])
    assert meter.unreadable == [f"{file} is not readable: {said}"]
    assert meter.joules() == {}


def test_a_counter_that_fails_for_a_while_loses_nothing(tmp_path: Path) -> None:
    first = _zone(tmp_path / "intel-rapl:0", "package-0", 0)
    second = _zone(tmp_path / "intel-rapl:1", "package-1", 0)
    meter = EnergyMeter(tmp_path, gpus=lambda: [])
    first.write_text("1000000")
    second.write_text("")
    assert meter.joules() == meter.joules() == {}
    (why,) = meter.unreadable
    assert why.startswith("a counter of the processor could not be read for a while")
    second.write_text("500000")
    assert meter.joules() == {"cpu": pytest.approx(1.5)}


def test_the_gpu_that_computes_counts_from_when_the_meter_was_made(tmp_path: Path) -> None:
    told = [replace(GPU, energy_j=7.0), replace(GPU, index=1)]
    meter = EnergyMeter(tmp_path / "none", gpu=1, gpus=lambda: told)
    (no_rapl,) = meter.unreadable
    assert no_rapl.startswith(f"no RAPL counters in {tmp_path / 'none'}")
    told[:] = [replace(GPU, energy_j=900.0), replace(GPU, index=1, energy_j=1250.0)]
    assert meter.joules() == {"gpu": 250.0}
    kept = told.pop()
    assert meter.joules() == {}, "it has fallen off the bus for a while"
    told.append(kept)
    assert meter.joules() == {"gpu": 250.0}
    assert meter.unreadable[1:] == ["GPU 1 did not tell its energy for a while"]


def test_a_gpu_without_a_counter_says_so_and_a_cpu_has_none(tmp_path: Path) -> None:
    silent = EnergyMeter(tmp_path, gpu=0, gpus=lambda: [replace(GPU, energy_j=None)])
    assert silent.unreadable[1:] == ["GPU 0 does not tell its energy"]
    assert EnergyMeter(tmp_path, gpus=lambda: [GPU]).joules() == silent.joules() == {}
