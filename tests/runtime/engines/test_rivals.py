"""An engine that runs another's graphs: in which precisions, and when "auto" takes it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines import choosing, kinds, opening
from sshr_deploy.runtime.engines.candidate import candidates_for
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kind import EngineKind, Opening, Package
from sshr_deploy.runtime.engines.kinds import ONNX_CPU
from sshr_deploy.runtime.engines.qualification import TOLERANCES
from sshr_deploy.runtime.engines.states import State, engine_states
from sshr_deploy.runtime.engines.trial import Trial, not_faster
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.runtime.settings import OpenOptions
from tests.bundles import copy_without_field_engines

NOT_YET = {
    f"twin {precision}": "not compared with onnx-cpu here yet; run once with `engine` twin and "
    f"`precision` {precision}"
    for precision in ("bf16", "fp32")
}


def _session(kind: EngineKind, opening: Opening) -> Session:
    session = OnnxRuntimeSession(opening.graph, opening.classes, precision=opening.precision)
    session.info = replace(session.info, engine=kind.name)
    if opening.folder is not None:
        (opening.folder / "engine.plan").write_bytes(b"compiled")
    return session


TWIN = EngineKind(
    name="twin",
    target="onnx",
    runs_on=Package("json", "twin", "twin"),
    graphs_of="onnx-cpu",
    precisions=(Precision.INT8, Precision.BF16, Precision.FP32),
    computed_from={Precision.BF16: Precision.FP32},
    text=lambda kind: "twin 1.0",
    session=_session,
    needs_gpu=False,
    keeps_files=True,
)


class Bench:
    """A machine with the twin; times are given, not taken."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.trial = Trial(plain_ms=10.0, with_ms=8.0)
        self.timed: list[tuple[str, str]] = []
        self.use(TWIN, monkeypatch)
        monkeypatch.setattr(opening, "time_pair", self._time)

    def use(self, twin: EngineKind, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kinds, "KINDS", (twin, ONNX_CPU))
        monkeypatch.setattr(choosing, "KINDS", (twin, ONNX_CPU))
        monkeypatch.setattr(choosing, "ENGINES", (twin.name, ONNX_CPU.name))

    def _time(self, plain: Session, other: Session, batch: int, rounds: int) -> Trial:
        assert (batch, rounds) == (8, 5)
        self.timed.append((plain.info.engine, other.info.precision))
        return self.trial

    def open(self, engine: str = "auto", precision: Precision | None = None) -> Session:
        session = open_session(load_bundle(self.folder), engine, OpenOptions(precision))
        session.close()
        return session

    def record(self) -> dict[str, Any]:
        (file,) = (self.folder / "engines").glob("twin-*/record.json")
        record: dict[str, Any] = json.loads(file.read_text())
        return record


@pytest.fixture
def bench(small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(copy_without_field_engines(small_bundle_dir, tmp_path / "bundle"), monkeypatch)


def test_precisions_come_from_the_graphs_of_the_other(small_bundle_dir: Path) -> None:
    bundle = load_bundle(small_bundle_dir)
    found = candidates_for(bundle, TWIN, None)
    assert [(str(c), c.artifact.precision) for c in found] == [
        ("twin bf16", Precision.FP32),
        ("twin fp32", Precision.FP32),
    ]
    assert found[0].tolerance == TOLERANCES[Precision.BF16]
    assert found[1].tolerance == found[1].artifact.tolerance
    assert candidates_for(bundle, TWIN, Precision.INT8) == []


def test_auto_takes_it_only_where_it_was_faster_here(bench: Bench) -> None:
    session = bench.open()
    assert (session.info.engine, session.info.rejected) == ("onnx-cpu", NOT_YET)
    assert bench.timed == [], "auto times nothing unasked"
    assert bench.open("twin", Precision.FP32).info.engine == "twin"
    assert bench.timed == [("onnx-cpu", "fp32")]
    assert bench.record()["build"]["rivals"]["onnx-cpu fp32"] == {
        **{"ms": 8.0, "rival_ms": 10.0},
        **{"batch": 8, "is_faster": True},
    }
    session = bench.open()
    assert (session.info.engine, session.info.precision) == ("twin", "fp32")
    assert session.info.rejected == {"twin bf16": NOT_YET["twin bf16"]}
    assert session.info.mask_agreement == 1.0
    assert session.info.notes == ("8.00 ms a call of 8, 10.00 ms with onnx-cpu fp32",)
    assert len(bench.timed) == 1


def test_what_is_not_faster_is_left_out_with_its_times(bench: Bench) -> None:
    bench.trial = Trial(plain_ms=10.0, with_ms=9.6)
    bench.open("twin", Precision.FP32)
    session = bench.open()
    assert session.info.engine == "onnx-cpu"
    assert session.info.rejected["twin fp32"] == (
        "not faster here than onnx-cpu fp32: 9.60 ms a call of 8, 10.00 ms with that"
    )
    assert bench.open("twin", Precision.FP32).info.engine == "twin", "by its name it works"


def test_a_precision_that_the_other_lacks_has_no_rival(bench: Bench) -> None:
    bench.trial = Trial(plain_ms=10.0, with_ms=20.0)
    session = bench.open("twin", Precision.BF16)
    assert (session.info.engine, session.info.precision) == ("twin", "bf16")
    assert bench.timed == [("onnx-cpu", "bf16")], "against the best there is"
    assert bench.open("auto", Precision.BF16).info.engine == "twin"
    assert bench.open("auto").info.engine == "onnx-cpu"


def test_where_the_other_does_not_work_there_is_no_rival(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(kind: EngineKind, opening: Opening) -> Session:
        raise SessionError("it does not start")

    monkeypatch.setattr(kinds, "KINDS", (TWIN, replace(ONNX_CPU, session=broken)))
    monkeypatch.setattr(choosing, "KINDS", (TWIN, replace(ONNX_CPU, session=broken)))
    bench.open("twin", Precision.FP32)
    assert (bench.timed, bench.record()["build"]["rivals"]) == ([], {})
    assert bench.open().info.engine == "twin"


def test_where_it_is_not_installed_nothing_is_said_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.use(replace(TWIN, runs_on=Package("no_such_module", "twin", "twin")), monkeypatch)
    session = bench.open()
    assert (session.info.engine, session.info.rejected) == ("onnx-cpu", {})


def test_what_it_compiled_is_hashed_and_made_again_where_it_was_changed(bench: Bench) -> None:
    bench.open("twin", Precision.FP32)
    (plan,) = (bench.folder / "engines").glob("twin-*/engine.plan")
    plan.write_bytes(b"changed!")
    states = {state.entry.path.name: state for state in engine_states(load_bundle(bench.folder))}
    assert states[plan.parent.name].state is State.DAMAGED
    assert bench.open().info.engine == "onnx-cpu"
    bench.open("twin", Precision.FP32)
    assert plan.read_bytes() == b"compiled" and len(bench.timed) == 2
    states = {state.entry.path.name: state for state in engine_states(load_bundle(bench.folder))}
    assert states[plan.parent.name].state is State.READY


def test_without_a_store_it_is_compiled_each_time(bench: Bench) -> None:
    shutil.rmtree(bench.folder / "engines")
    (bench.folder / "engines").write_text("in the way")
    assert bench.open("twin", Precision.FP32).info.mask_agreement == 1.0
    assert bench.open().info.engine == "onnx-cpu"


@pytest.mark.parametrize("build", [{}, {"rivals": 3}, {"rivals": {}}])
def test_a_record_without_rivals_stops_nothing(build: dict[str, Any]) -> None:
    assert not_faster(build, ["onnx-cpu fp32"]) is None
