from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sshr_deploy.benchmarks.throughput import engine
from sshr_deploy.benchmarks.throughput.engine import BundleEngine
from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import SessionError
from tests.benchmarks.throughput.stand_in_engine import Clock, StandIn


def test_the_gpu_is_the_one_that_computes(
    small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = BundleEngine(load_bundle(small_bundle_dir), "auto", threads=1)
    session = StandIn(Clock(monkeypatch), lambda *_: 0.1, 1, 8)
    monkeypatch.setattr(engine, "first_gpu", lambda: SimpleNamespace(index=3))
    assert wanted.gpu(session) is None, "it computes on the CPU"
    session.info = replace(session.info, engine="onnx-cuda")
    assert wanted.gpu(session) == 3

    def hidden() -> None:
        raise SessionError("a slice of a GPU")

    monkeypatch.setattr(engine, "first_gpu", hidden)
    assert wanted.gpu(session) is None


@pytest.mark.parametrize(
    ("name", "wanted"), [("auto", None), ("tensorrt", True), ("onnx-cpu", False)]
)
def test_what_is_made_for_a_batch_size_is_known_unless_the_machine_chooses(
    small_bundle_dir: Path, name: str, wanted: bool | None
) -> None:
    found = BundleEngine(load_bundle(small_bundle_dir), name, threads=1)
    assert found.has_static_batches is wanted
