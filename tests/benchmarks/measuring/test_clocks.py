"""Clocks are told where the machine tells them, and else are none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sshr_deploy.benchmarks.measuring import clocks
from sshr_deploy.benchmarks.measuring.clocks import read_clocks
from sshr_deploy.benchmarks.report.records import Clocks


def test_this_machine_is_read() -> None:
    found = Clocks.model_validate(read_clocks())
    assert found.cpu_mhz is None or 100 < found.cpu_mhz < 10_000
    assert len(found.gpu_sm_mhz) == len(found.gpu_memory_mhz)


def test_all_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "governor").write_text("powersave\n")
    gpu = SimpleNamespace(sm_clock_mhz=1980, memory_clock_mhz=None)
    monkeypatch.setattr(clocks, "_GOVERNOR", tmp_path / "governor")
    monkeypatch.setattr(clocks, "gpu_loads", lambda: [gpu])
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2445.43))
    assert read_clocks() == {
        "cpu_mhz": 2445.4, "governor": "powersave", "gpu_sm_mhz": [1980], "gpu_memory_mhz": [None],
    }  # fmt: skip


def untold() -> Any:
    raise NotImplementedError("can't find current frequency file")


@pytest.mark.parametrize("answer", [untold, lambda: None, lambda: SimpleNamespace(current=0.0)])
def test_what_is_not_told_is_none(
    answer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clocks, "_GOVERNOR", tmp_path / "none")
    monkeypatch.setattr(psutil, "cpu_freq", answer)
    found = read_clocks()
    assert (found["cpu_mhz"], found["governor"]) == (None, None)
