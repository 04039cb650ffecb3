"""Shares of an area by class, as a bar and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Share of one class."""

    index: int
    """Of the class on the page, which has its colour."""
    name: str
    share: float | None
    """0 to 1; None where the class was not looked for."""
    area_mm2: float | None
    start: float
    """Sum of the shares before it."""


def parts_of(
    names: Sequence[str], shares: Mapping[str, float], areas_mm2: Mapping[str, float | None]
) -> list[Part]:
    """One for each of the page's classes `names`."""
    parts: list[Part] = []
    start = 0.0
    for index, name in enumerate(names):
        share = shares.get(name)
        parts.append(Part(index, name, share, areas_mm2.get(name), start))
        start += share or 0.0
    return parts
