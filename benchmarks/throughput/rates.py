"""Rates of an engine as samples of a row, and what follows from them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.judging import reference_of
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.benchmarks.throughput.slide_amount import SlideAmount
from sshr_deploy.bundle import Bundle
from sshr_deploy.geometry import Geometry
from sshr_deploy.runtime.contract import MaskRule, Session
from sshr_deploy.runtime.masks import mask_rule

_LEAST_S = 0.25
"""Of a sample: filling and emptying the streams is then a small part of it."""
_SHARED = frozenset({"cpu_joules_per_slide", "cpu_watts"})
"""Figures of the whole processor, whoever computes on it."""


@dataclass(frozen=True)
class Load:
    """Batches for a session, as slides bring them: by its stream, with label maps.

    Of tissue: a network takes as long for noise, but its label maps have fewer classes to enlarge.
    """

    session: Session
    inputs: NDArray[np.uint8]
    """One batch."""
    rule: MaskRule | None
    """None for fields, whose label maps are made of all of a slide."""

    @classmethod
    def of(cls, session: Session, bundle: Bundle, batch: int) -> Load:
        """Batches of so many inputs of the bundle's reference.

        Raises:
            BundleError: the reference is broken.
        """
        shown = reference_of(bundle).patches
        rule = mask_rule(bundle.manifest.profile) if session.geometry.is_patch else None
        return cls(session, np.resize(shown, (batch, *shown.shape[1:])), rule)

    def run(self, batches: int) -> None:
        """Compute so many batches that follow one another."""
        source = ((None, self.inputs) for _ in range(batches))
        results: Any = (
            self.session.stream(source)
            if self.rule is None
            else self.session.stream(source, self.rule)
        )
        for _ in results:
            pass

    def batches_a_sample(self) -> int:
        """Batches that take a quarter of a second, after one to warm up; two at least."""
        self.run(1)
        start = time.perf_counter()
        self.run(2)
        return max(2, math.ceil(_LEAST_S / ((time.perf_counter() - start) / 2)))


def inputs_word(geometry: Geometry) -> str:
    """ "patches" or "fields"."""
    return "patches" if geometry.is_patch else "fields"


def rate_figures(
    per_s: float, input_mm2: float, amount: SlideAmount | None, watts: Mapping[str, float]
) -> dict[str, float | None]:
    """What follows from so many inputs a second.

    Args:
        per_s: inputs a second.
        input_mm2: that an input covers.
        amount: of a slide; None where none is stated.
        watts: mean power meanwhile, of "cpu" and "gpu", where it is readable.
    """
    covers = input_mm2 if amount is None else amount.input_mm2
    figures: dict[str, float | None] = {"inputs_per_s": per_s, "mm2_per_s": per_s * covers}
    if amount is not None:
        slide_s = amount.inputs / per_s
        figures["slides_per_h"] = 3600 / slide_s
        figures |= {f"{part}_joules_per_slide": w * slide_s for part, w in watts.items()}
    return figures | {f"{part}_watts": w for part, w in watts.items()}


def rate_row(
    name: str,
    geometry: Geometry,
    samples: Sequence[float],
    agreement: Agreement,
    figures: Mapping[str, float | None],
    facts: Mapping[str, Any],
    busy: str | None,
) -> Row:
    """A row of inputs a second.

    With `busy`, see `Recorder.busy`, the processor's joules are not told: part is of other work.
    """
    refused = {} if busy is None else dict.fromkeys(_SHARED & figures.keys(), busy)
    return Row(
        name=name,
        unit=f"{inputs_word(geometry)}/s",
        better="higher",
        samples=tuple(samples),
        agreement=agreement,
        figures={**figures, **dict.fromkeys(refused)},
        refused=refused,
        facts=dict(facts),
    )


def refused_row(name: str, geometry: Geometry, why: str, agreement: Agreement | None) -> Row:
    """A row of what was not measured."""
    return Row(
        name=name,
        unit=f"{inputs_word(geometry)}/s",
        better="higher",
        samples=(),
        not_measured=why,
        agreement=agreement,
    )
