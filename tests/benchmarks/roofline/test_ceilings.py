from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.roofline import ceilings as module
from sshr_deploy.benchmarks.roofline.ceilings import (
    Ceilings,
    Product,
    measure_ceilings,
)
from sshr_deploy.precision import Precision

CEILINGS = Ceilings(
    (
        Product(Precision.FP32, "slow", 100, (0.04, 0.05)),  # 2e6 operations in 40 us
        Product(Precision.FP32, "fast", 100, (0.03, 0.02)),
    ),
    copy_gb_per_s=10.0,
    cache_gb_per_s=40.0,
    cache_bytes=1000,
    threads=2,
    not_measured={Precision.BF16: "no such units"},
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"_SECONDS": 0.0, "_SETTLE_S": 0.0, "_SIDE": 64}.items():
        monkeypatch.setattr(module, name, value)
    yield


def test_the_ceiling_is_the_fastest_call_of_the_fastest_library() -> None:
    assert CEILINGS.gflop_per_s == {Precision.FP32: pytest.approx(100.0)}


@pytest.mark.parametrize(("held", "gb_per_s"), [(1000, 40.0), (1001, 10.0)])
def test_what_the_caches_hold_comes_from_them(held: int, gb_per_s: float) -> None:
    assert CEILINGS.bandwidth(held) == gb_per_s


@pytest.mark.parametrize(
    ("flop", "moved", "ms"),
    [(2e9, 1000.0, 20.0), (1e9, 1e9, 100.0), (0.0, 800.0, 2e-5)],
    ids=["operations", "bytes", "bytes in the caches"],
)
def test_work_takes_at_least_as_long_as_its_operations_and_its_bytes(
    flop: float, moved: float, ms: float
) -> None:
    assert CEILINGS.floor_ms(flop, moved, Precision.FP32) == pytest.approx(ms)
    assert CEILINGS.floor_ms(1.0, moved, Precision.BF16) is None


@pytest.mark.usefixtures("short")
def test_the_processor_is_measured_by_each_library(tmp_path: Path) -> None:
    found = measure_ceilings([Precision.FP32, Precision.INT8, Precision.FP16], 1)

    measured = [(product.precision, product.library) for product in found.products]
    libraries = ("onnxruntime", "openvino")
    assert measured == [(p, lib) for p in (Precision.FP32, Precision.INT8) for lib in libraries]
    assert found.threads == 1 and found.copy_gb_per_s > 0
    assert list(found.not_measured) == [Precision.FP16]
    assert "no fp16 product" in found.not_measured[Precision.FP16]
    write_json(tmp_path / "ceilings.json", found.as_json())
    written = json.loads((tmp_path / "ceilings.json").read_text())
    assert set(written["gflop_per_s"]) == {"fp32", "int8"}
    assert written["products"][0]["samples_ms"]
