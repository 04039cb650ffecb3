from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.pipeline.runs import TimedRun, run_whole
from sshr_deploy.benchmarks.pipeline.stages import STAGES, limit_of, shares_of, stages_of
from sshr_deploy.benchmarks.stand_in_session import StandInSession
from sshr_deploy.bundle import load_bundle
from sshr_deploy.geometry import Geometry
from sshr_deploy.runtime.pipeline import endings, slide
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.pipeline.units import FieldUnits
from sshr_deploy.runtime.results.records import RunEffort
from tests.runtime.running import context_of
from tests.runtime.small_slides import small_picture, small_slide

FIELDS = Geometry(448, 56)
LEAST_SLOW_S = 0.6


def run_of(bundle_dir: Path, folder: Path, unit_s: float = 0.0) -> TimedRun:
    """Of a small slide, by a session that takes `unit_s` a unit."""
    source = small_slide(folder / "x.tif", small_picture(300, 300))
    bundle = load_bundle(bundle_dir)
    session = StandInSession(bundle.manifest.profile.num_classes, FIELDS, unit_s)
    return run_whole(source, context_of(bundle, session, readers=1))


@pytest.fixture(scope="module")
def slow_s(small_bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Far more than all of such a slide takes without, however busy this machine is."""
    runs = [run_of(small_bundle_dir, tmp_path_factory.mktemp("plain")) for _ in range(2)]
    return max(LEAST_SLOW_S, 3 * runs[1].seconds)  # the first one imports


def timed(busy: dict[str, float], waited: dict[str, float], seconds: float = 10.0) -> TimedRun:
    effort = RunEffort(
        busy_s=busy,
        engine_waited_s=waited,
        limited_by="engine",
        readers=4,
        readers_chosen_by="`readers`",
    )
    return TimedRun(seconds, 12.0, effort, 5, 1.0, (Path("a.svs"),))


def test_the_time_of_the_engines_thread_is_divided_among_the_stages() -> None:
    busy = {"plan": 1.0, "read": 8.0, "infer": 3.0, "keep": 0.5, "labels": 1.0, "write": 3.0}
    stages = stages_of(timed(busy, {"plan": 1.0, "read": 0.5, "write": 2.0}))
    assert list(stages) == list(STAGES)
    assert [stage.held_up_s for stage in stages.values()] == [1.0, 0.5, 3.0, 0.5, 0.5, 1.5, 3.0]
    assert stages["rest"].busy_s == 3.0
    assert [stages[name].threads for name in ("plan", "read", "infer")] == [1, 4, 1]
    assert limit_of([timed(busy, {"plan": 1.0, "read": 0.5, "write": 2.0})]) == "infer"
    assert [stage.engine_waited_s for stage in stages.values()] == [
        1.0, 0.5, None, None, 0.5, 1.5, None,
    ]  # fmt: skip


def test_the_limit_is_that_of_the_medians_of_the_runs() -> None:
    runs = [
        timed({"infer": infer_s}, {"read": read_s})
        for infer_s, read_s in ((6.0, 1.0), (6.0, 1.0), (2.0, 7.0))
    ]
    assert limit_of(runs[2:]) == "read"
    assert limit_of(runs) == "infer"
    assert shares_of(runs)["infer"] == pytest.approx(0.6)
    assert shares_of(runs)["read"] == pytest.approx(0.1)


def test_a_stage_without_work_or_waiting_has_none() -> None:
    run = timed({"infer": 12.0}, {})
    stages = stages_of(run)
    assert stages["write"].held_up_s == stages["rest"].held_up_s == 0.0
    assert limit_of([run]) == "infer"


@pytest.mark.parametrize("stage", STAGES)
def test_slowness_of_one_stage_is_named(
    small_bundle_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    slow_s: float,
) -> None:
    places: dict[str, tuple[Any, str]] = {
        "plan": (slide, "plan_units"),
        "read": (FieldUnits, "read"),
        "keep": (UnitStore, "put"),
        "labels": (FieldUnits, "bands"),
        "write": (slide, "write_slide_files"),
        "rest": (endings, "write_summary"),
    }
    if stage in places:
        owner, name = places[stage]
        monkeypatch.setattr(owner, name, slowed(getattr(owner, name), slow_s))
    run = run_of(small_bundle_dir, tmp_path, slow_s if stage == "infer" else 0.0)
    stages = stages_of(run)
    assert limit_of([run]) == stage
    assert stages[stage].busy_s >= slow_s * 0.99
    assert sum(s.held_up_s for s in stages.values()) == pytest.approx(run.seconds, rel=0.01)


def slowed(function: Callable[..., Any], by_s: float) -> Callable[..., Any]:
    def slow(*args: Any, **options: Any) -> Any:
        if function.__name__ == "bands":
            return late(function(*args, **options), by_s)
        time.sleep(by_s)
        return function(*args, **options)

    return slow


def late(items: Any, by_s: float) -> Any:
    time.sleep(by_s)
    yield from items
