"""`prefer_nhwc` is tried where onnx-cuda is qualified, and kept where it is faster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.contract import CamBatch, Session
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kinds import ONNX_CUDA
from sshr_deploy.runtime.engines.trial import Trial, options_of, time_pair
from sshr_deploy.runtime.machine import gpus as gpu_module
from sshr_deploy.runtime.machine.gpus import Gpu
from sshr_deploy.runtime.sessions.onnxruntime import cuda as onnxruntime_cuda
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from tests.bundles import copy_without_field_engines
from tests.runtime.qualifying import KnownSession

CARD = Gpu(0, "a card", 89, "580.95.05", 16384)


class Card:
    """onnx-cuda on a machine whose GPU is this processor; times are given, not taken."""

    def __init__(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bundle = bundle
        self.opened: list[dict[str, str]] = []
        self.batches: list[int] = []
        self.trial = Trial(10.0, 8.0)
        self.fault = ""
        self.factor = 1.0
        """By which the CAMs are off with the options."""
        self.timed = 0
        monkeypatch.setattr(gpu_module, "find_gpus", lambda: (CARD,))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(onnxruntime_cuda, "OnnxRuntimeCudaSession", self._session)
        name = "sshr_deploy.runtime.engines.opening.time_pair"
        monkeypatch.setattr(name, self._time)

    def _session(
        self, graph: Path, classes: int, *, more_options: Mapping[str, str], **facts: Any
    ) -> Session:
        if more_options and self.fault:
            raise SessionError(self.fault)
        self.opened.append(dict(more_options))
        self.batches.append(facts["batch"])
        factor = np.float32(self.factor if more_options else 1)

        class Standing(OnnxRuntimeSession):
            def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
                cams = super()._compute(patches)
                return replace(cams, cam_28_1=cams.cam_28_1 * factor)

        session = Standing(graph, classes)
        session.info = replace(session.info, engine="onnx-cuda", device=CARD.name)
        return session

    def _time(self, plain: Session, other: Session, batch: int) -> Trial:
        assert batch == 32
        self.timed += 1
        return self.trial

    def open(self) -> Session:
        session = open_session(load_bundle(self.bundle), "onnx-cuda")
        session.close()
        return session

    def record(self) -> dict[str, Any]:
        (file,) = (self.bundle / "engines").glob("onnx-cuda-*/record.json")
        record: dict[str, Any] = json.loads(file.read_text())
        return record


@pytest.fixture
def card(small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(copy_without_field_engines(small_bundle_dir, tmp_path / "bundle"), monkeypatch)


NHWC = {"prefer_nhwc": "1"}


def test_the_option_is_kept_where_it_is_faster_and_used_from_then_on(card: Card) -> None:
    assert ONNX_CUDA.provider is not None and ONNX_CUDA.provider.on_trial == NHWC
    session = card.open()
    assert card.opened == [{}, NHWC, NHWC]  # to compare, on trial, to use
    assert set(card.batches) == {32}
    (note,) = session.info.notes
    assert note == "prefer_nhwc=1 is used: 8.00 ms a call of 32, 10.00 ms without it"
    assert card.record()["build"]["provider_options"] == NHWC
    card.opened.clear()
    assert card.open().info.notes == (note,)
    assert (card.opened, card.timed) == ([NHWC], 1)


@pytest.mark.parametrize("with_ms", [9.6, 12.0])
def test_what_is_not_clearly_faster_is_not_used(card: Card, with_ms: float) -> None:
    card.trial = Trial(10.0, with_ms)
    (note,) = card.open().info.notes
    assert note.startswith(f"prefer_nhwc=1 is not used: {with_ms:.2f} ms")
    assert card.opened == [{}, NHWC, {}]


def test_an_option_that_does_not_work_is_left_out(card: Card) -> None:
    card.fault = "this onnxruntime knows no prefer_nhwc"
    (note,) = card.open().info.notes
    assert note == "prefer_nhwc=1 is not used: this onnxruntime knows no prefer_nhwc"
    assert card.opened == [{}, {}]


def test_an_option_with_which_the_results_differ_is_left_out(card: Card) -> None:
    card.factor = 1.01
    session = card.open()
    assert session.info.notes[0].startswith("prefer_nhwc=1 is not used: cam_28_1 is off by")
    assert (session.info.unqualified, card.timed, card.opened[-1]) == (None, 0, {})
    assert card.record()["qualification"]["cam_relative_error"]["cam_28_1"] < 1e-4


def test_sessions_are_timed_in_turn() -> None:
    now = 0.0
    order: list[str] = []

    class Slow(KnownSession):
        def __init__(self, name: str, seconds: float) -> None:
            super().__init__()
            self.name, self.seconds = name, seconds

        def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
            nonlocal now
            assert patches.shape == (2, 224, 224, 3)
            now += self.seconds if len(order) > 4 else 100.0  # the first calls do not count
            order.append(self.name)
            return super()._compute(patches)

    trial = time_pair(Slow("plain", 0.02), Slow("with", 0.01), 2, clock=lambda: now)
    assert trial == pytest.approx((20.0, 10.0))
    assert trial.is_faster
    assert order[:4] in (["plain", "with", "with", "plain"], ["with", "plain", "plain", "with"])
    assert order.count("plain") == order.count("with") == len(order) // 2


@pytest.mark.parametrize("build", [{}, {"provider_options": 3}, {"provider_options": None}])
def test_a_record_without_options_gives_none(build: dict[str, Any]) -> None:
    assert options_of(build) == {}
