"""Rows of the roofline: what follows from the calls of an engine and the work of its graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import why_no_speed
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.benchmarks.roofline.ceilings import Ceilings
from sshr_deploy.benchmarks.roofline.layers import Layer
from sshr_deploy.benchmarks.roofline.work import GraphWork
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.candidate import Candidate
from sshr_deploy.runtime.machine.spread import spread_of


@dataclass
class Entrant:
    """An engine that is open, and what it has to do."""

    contender: Contender
    candidate: Candidate
    session: Session
    agreement: Agreement
    work: GraphWork
    ceilings: Ceilings | None
    """None where those of its device were not measured."""
    samples_ms: list[float]
    more_facts: dict[str, Any]


def ceilings_name(on_gpu: bool) -> str:
    """Of the document's fact."""
    return "gpu_ceilings" if on_gpu else "ceilings"


def row_of(entrant: Entrant, batch: int, busy: str | None) -> Row:
    """The samples of an engine with its rates, its floor and its share of the ceiling.

    Args:
        entrant: with one sample at least.
        batch: patches of a call.
        busy: why no share is told; None on a quiet machine.
    """
    spread, work = spread_of(entrant.samples_ms), entrant.work
    flop, moved = batch * work.flop, work.moved_bytes(batch)
    floor_ms, why = _floor_ms(entrant, batch)
    disagrees = why_no_speed(entrant.agreement)
    reasons = [why, busy, disagrees, spread.busy()]
    refused = next((reason for reason in reasons if reason is not None), None)
    share = None if refused is not None or floor_ms is None else floor_ms / spread.median_ms
    facts = _facts(entrant, batch) | layers_told(entrant.more_facts, busy)
    if disagrees is not None:
        facts["unqualified"] = disagrees
    return Row(
        name=entrant.contender.name,
        unit="ms",
        better="lower",
        samples=tuple(entrant.samples_ms),
        agreement=entrant.agreement,
        figures={
            "median_ms": spread.median_ms,
            "gflop": flop / 1e9,
            "gb": moved / 1e9,
            "flop_per_byte": flop / moved,
            "gflop_per_s": flop / spread.median_ms / 1e6,
            "gb_per_s": moved / spread.median_ms / 1e6,
            "floor_ms": floor_ms,
            "share_of_ceiling": share,
        },
        refused={} if refused is None else {"share_of_ceiling": refused},
        facts=facts,
    )


def _floor_ms(entrant: Entrant, batch: int) -> tuple[float | None, str | None]:
    """The least time of a call: that of its convolutions and products one after another."""
    if entrant.ceilings is None:
        return None, "the GPU's ceilings were not measured"
    total = 0.0
    for node in entrant.work.products.values():
        moved = node.weight_bytes + batch * node.value_bytes
        floor = entrant.ceilings.floor_ms(batch * node.flop, moved, node.precision)
        if floor is None:
            missing = entrant.ceilings.not_measured.get(node.precision)
            return None, missing or f"no product was measured in {node.precision}"
        total += floor
    return total, None


def _facts(entrant: Entrant, batch: int) -> dict[str, Any]:
    info, on_gpu = entrant.session.info, entrant.candidate.kind.needs_gpu
    return {
        "engine": info.engine,
        "precision": info.precision,
        "library": info.library,
        "device": info.device,
        "streams": info.streams,
        "batch": batch,
        "ceilings": ceilings_name(on_gpu),
        "other_gflop": batch * entrant.work.other_flop / 1e9,
    }


def layers_told(facts: dict[str, Any], busy: str | None) -> dict[str, Any]:
    """Facts about layers, without what they lose where the machine was busy, the longest first.

    Args:
        facts: with "layers" and "calls_ms", the time of all in each call; or without layers.
        busy: why nothing is told of them; where it is None the spread of "calls_ms" decides.
    """
    if not facts.get("layers"):
        return facts
    if (why := busy or spread_of(facts["calls_ms"]).busy()) is None:
        return facts
    layers = [{**layer, "lost_ms": None} for layer in facts["layers"]]
    layers.sort(key=lambda layer: -layer["median_ms"])
    return {**facts, "layers": layers, "kernels_without_worst_ms": None, "layers_refused": why}


def layer_facts(layer: Layer, ceilings: Ceilings) -> dict[str, Any]:
    """A layer for the facts of a row."""
    return {
        "layer": layer.layer,
        "kernel": layer.kernel,
        "operator": layer.operator,
        "precision": str(layer.precision),
        "gflop": layer.flop / 1e9,
        "gb": layer.moved_bytes / 1e9,
        "median_ms": layer.median_ms,
        "floor_ms": layer.floor_ms(ceilings),
        "lost_ms": layer.lost_ms(ceilings),
        "samples_ms": layer.samples_ms,
    }
