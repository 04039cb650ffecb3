from __future__ import annotations

from typing import Any

import pytest

from sshr_deploy.cli.throughput_table import print_throughput
from tests.benchmarks.report.documents import make_document, make_row

SOAK: dict[str, Any] = {
    "until_s": 10.0, "inputs_per_s": 30.0, "watts": {}, "cpu_mhz": None, "cpu_celsius": None,
}  # fmt: skip


def test_reasons_and_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    why = "openvino is not installed: pip install 'sshr-deploy[openvino]', or give `engine`"
    refused = make_row("batch 1", (), unit="patches/s", agreement=None, not_measured=why)
    slide = {"about": "[a]\tx.svs", "inputs": 3.0, "mm2": 1.0}
    print_throughput(make_document([refused], "throughput", facts={"slide": slide}))
    shown = capsys.readouterr().out
    assert why.replace("`engine`", "--engine") in shown, "and not wrapped in a pipe"
    assert "slide: [a]\\tx.svs, 3 inputs" in shown


@pytest.mark.parametrize(
    ("ends", "said"), [((0.97, 1.02), "it holds its rate"), ((0.8, 0.9), "slower")]
)
def test_a_soak_tells_its_trend_and_what_held_clocks_back(
    ends: tuple[float, float], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = {"index": 0, "temperature_celsius": 90, "sm_clock_mhz": 800}
    gpus = [{**gpu, "slowed_share": {"heat": 0.25}}, {**gpu, "slowed_share": {"heat": 0.5}}]
    trend = {
        f"last_over_first{end}": value for end, value in zip(("_low", "_high"), ends, strict=True)
    }
    trend["last_over_first"] = sum(ends) / 2
    facts = {"windows": [{**SOAK, "gpus": gpus}]}
    row = make_row("soak", [30.0], unit="patches/s", figures=trend, facts=facts)
    print_throughput(make_document([row], "soak"))
    shown = capsys.readouterr().out
    assert "heat 50%" in shown
    assert f"({ends[0]:.3f}-{ends[1]:.3f}), {said}\n" in shown
