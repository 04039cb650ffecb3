"""Rows of the latency benchmark: what follows from the calls of a contender at a batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from sshr_deploy.benchmarks.contenders.judging import why_no_speed
from sshr_deploy.benchmarks.contenders.parts import Parts
from sshr_deploy.benchmarks.contenders.trtexec import TrtexecPeer
from sshr_deploy.benchmarks.measuring.neighbours import spoiled_ceiling
from sshr_deploy.benchmarks.measuring.percentiles import calls_for, percentile
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.machine.spread import ratio_of

PERCENTS = (50, 90, 95, 99)


@dataclass
class Calls:
    """Calls of one contender at one batch size, so far."""

    name: str
    """Of the contender."""
    batch: int
    """Inputs of a call."""
    precision: Precision
    agreement: Agreement
    parts: Parts
    """Of a call: the median of a few that are not among the samples."""
    facts: dict[str, Any]
    samples_ms: list[float] = field(default_factory=list)
    inputs: str = "patches"
    """Or "fields"."""
    on_gpu: bool = False

    @property
    def disagrees(self) -> str | None:
        """Why its speed is told only to those who asked for it; None where its masks agree."""
        return why_no_speed(self.agreement)


@dataclass(frozen=True)
class Yardsticks:
    """Those that calls are held against."""

    gflop_per_input: float
    ceilings_gflop_per_s: Mapping[Precision, float]
    """By precision, of the processor; empty where they were not measured."""
    base: Calls | None
    """Of the same batch size; None where there is none to compare with."""
    no_base: str | None
    """Why not, in one line; None where there is one."""
    busy: str | None
    """Why neither ratios nor shares are told; None on a quiet machine."""


def row_name(contender: str, batch: int, inputs: str = "patches") -> str:
    """ "onnx-cpu int8, batch 8", or "onnx-cpu int8, batch 2 of fields"."""
    return f"{contender}, batch {batch}" + ("" if inputs == "patches" else f" of {inputs}")


def unmeasured_row(
    contender: str,
    batch: int,
    reason: str,
    agreement: Agreement | None = None,
    inputs: str = "patches",
) -> Row:
    """Row of a contender that has no samples, with the reason in one line."""
    return Row(
        name=row_name(contender, batch, inputs),
        unit="ms",
        better="lower",
        samples=(),
        not_measured=reason,
        agreement=agreement,
        facts={"contender": contender, "batch": batch},
    )


def row_of(calls: Calls, against: Yardsticks) -> Row:
    """The samples of `calls` with their percentiles, parts, rates and ratio."""
    parts: dict[str, float | None] = asdict(calls.parts)
    if calls.inputs == "fields":
        parts["labels_ms"] = None  # they are made of all of a slide
    figures, refused = _figures(calls.samples_ms, calls.batch, parts, against, calls.inputs)
    _add_share(figures, refused, None if calls.on_gpu else calls.precision, against)
    figures["speed"], why = _speed(calls, against)
    if why is not None:
        refused["speed"] = why
    base = None if against.base is None else against.base.name
    facts = {"contender": calls.name, "batch": calls.batch, "base": base, **calls.facts}
    if calls.disagrees is not None:
        facts["unqualified"] = calls.disagrees
    return Row(
        name=row_name(calls.name, calls.batch, calls.inputs),
        unit="ms",
        better="lower",
        samples=tuple(calls.samples_ms),
        agreement=calls.agreement,
        figures=figures,
        refused=refused,
        facts=facts,
    )


def row_apart(row: Row, peer: TrtexecPeer, batch: int, against: Yardsticks) -> Row:
    """The row of a peer that times itself, which no ratio is told of, in the form of the others."""
    facts = {**row.facts, "contender": peer.name, "batch": batch, "base": None, "peer": True}
    if not row.samples:
        return row.model_copy(update={"facts": facts})
    parts = {part.name: row.figures.get(part.name) for part in fields(Parts)}
    figures, refused = _figures(row.samples, batch, parts, against)
    _add_share(figures, refused, None, against)
    figures["speed"], refused["speed"] = None, "it was not timed in turns with the others"
    return row.model_copy(update={"figures": figures, "refused": refused, "facts": facts})


def _figures(
    samples_ms: Sequence[float],
    batch: int,
    parts: Mapping[str, float | None],
    against: Yardsticks,
    inputs: str = "patches",
) -> tuple[dict[str, float | None], dict[str, str]]:
    """All but ratio and share, and why those are missing that are."""
    figures, refused = _percentiles(samples_ms)
    per_s = batch / float(np.median(samples_ms)) * 1e3
    figures |= {
        "max_ms": max(samples_ms),
        **parts,
        f"{inputs}_per_s": per_s,
        "gflop_per_s": per_s * against.gflop_per_input,
    }
    return figures, refused


def _add_share(
    figures: dict[str, float | None],
    refused: dict[str, str],
    precision: Precision | None,
    against: Yardsticks,
) -> None:
    """Share of what the processor reaches in `precision`, None on a GPU, or why it is not told."""
    figures["share_of_ceiling"] = None
    if precision is None:
        refused["share_of_ceiling"] = "the GPU's ceilings are those of `benchmark roofline`"
        return
    ceiling, achieved = against.ceilings_gflop_per_s.get(precision), figures["gflop_per_s"]
    if ceiling is None or achieved is None:
        return
    if against.busy is not None:
        refused["share_of_ceiling"] = against.busy
        return
    if (spoiled := spoiled_ceiling(achieved / ceiling)) is not None:
        refused["share_of_ceiling"] = spoiled
        return
    figures["share_of_ceiling"] = achieved / ceiling


def _percentiles(samples_ms: Sequence[float]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Figures, each percentile with its interval, and why those are missing that are."""
    figures: dict[str, float | None] = {}
    refused = {}
    for percent in PERCENTS:
        name, found = f"p{percent}", percentile(samples_ms, percent)
        figures[f"{name}_ms"] = None if found is None else found.value
        if found is None:
            refused[f"{name}_ms"] = f"needs {calls_for(percent)} calls"
            continue
        figures |= {f"{name}_low_ms": found.low, f"{name}_high_ms": found.high}
    return figures, refused


def _speed(calls: Calls, against: Yardsticks) -> tuple[float | None, str | None]:
    """How many times as fast as the base, or why that is not told."""
    base = against.base
    if base is None:
        return None, against.no_base
    if base is calls:
        return 1.0, None
    for reason in (against.busy, calls.disagrees):
        if reason is not None:
            return None, reason
    ratio = ratio_of((base.name, base.samples_ms), (calls.name, calls.samples_ms))
    return ratio.value, ratio.refused
