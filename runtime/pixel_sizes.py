"""Pixel sizes that a user gives: one for all slides, or a table of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import NamedTuple

from sshr_deploy.errors import InputError, SourceError, UsageError, counted
from sshr_deploy.runtime.name_patterns import matches, normalised
from sshr_deploy.runtime.text_file import decoded

MIN_MPP_UM = 0.05
"""Half the pixel of a 100x objective; smaller values are unit mistakes."""
MAX_MPP_UM = 80.0
"""Larger values are resolutions of screens and printers (72 dpi is 353 um, 300 dpi 85 um) that
picture editors write. A scanner's overview of a slide 75 mm long has 1,000 pixels or more, of at
most 75 um: that is no scan to segment, but a true size, which `choose_level` calls too coarse."""
FROM_OPTION, FROM_TABLE = "--mpp", "--mpp-table"
_COLUMNS = ("name", "pattern", "mpp")


class GivenMpp(NamedTuple):
    """What a user gives for one input."""

    um: float | None
    """Size of a level-0 pixel, in x and y."""
    force: bool = False
    """It counts even where the file states its own."""
    source: str = FROM_OPTION
    """`FROM_OPTION` or `FROM_TABLE`, as results have it."""


NOT_GIVEN = GivenMpp(None)


@dataclass(frozen=True)
class MppRow:
    """A row of a table."""

    name: str
    """A name or path, or a pattern of such."""
    mpp_um: float
    is_pattern: bool = False


@dataclass(frozen=True)
class MppTable:
    """Pixel sizes by name. Names and patterns are compared as `name_patterns.matches` says."""

    path: str
    """Of the file."""
    rows: tuple[MppRow, ...]

    def mpp_um(self, place: PurePath) -> float | None:
        """Pixel size of the input at `place`, its path below the folder that is searched.

        Its whole path comes first, then its name, then patterns; None where it has no row.

        Raises:
            InputError: several patterns match, and differ.
        """
        for name in (place.as_posix(), place.name):
            row = self._by_name.get(normalised(name))
            if row is not None:
                return row.mpp_um
        found = [row for row in self._patterns if matches(row.name, place)]
        if len({row.mpp_um for row in found}) > 1:
            sizes = ", ".join(f"{row.mpp_um:g} by {row.name}" for row in found)
            raise InputError(
                f"{place} has several pixel sizes in {self.path} ({sizes}); give it a row of its "
                "own name"
            )
        return found[0].mpp_um if found else None

    def check(self, places: Iterable[PurePath]) -> None:
        """Refuse inputs for which patterns differ.

        Raises:
            SourceError: there are such; lists them.
        """
        problems: list[str] = []
        for place in places:
            try:
                self.mpp_um(place)
            except InputError as error:
                problems.append(str(error))
        if problems:
            raise SourceError.of(problems, f"`mpp_table` {self.path}")

    def unused(self, places: Sequence[PurePath]) -> list[str]:
        """Names and patterns that are of none of the inputs."""
        known = {normalised(name) for place in places for name in (place.as_posix(), place.name)}
        return [
            row.name
            for row in self.rows
            if not (
                any(matches(row.name, place) for place in places)
                if row.is_pattern
                else normalised(row.name) in known
            )
        ]

    @cached_property
    def _by_name(self) -> dict[str, MppRow]:
        return {normalised(row.name): row for row in self.rows if not row.is_pattern}

    @cached_property
    def _patterns(self) -> list[MppRow]:
        return [row for row in self.rows if row.is_pattern]


def is_pixel_size(um: float) -> bool:
    """Whether a slide's pixels can be so large."""
    return math.isfinite(um) and MIN_MPP_UM <= um <= MAX_MPP_UM


def read_mpp_table(path: Path) -> MppTable:
    """Read a CSV file with a column `mpp`, in um, and a column `name`, `pattern` or both.

    Columns may be separated by commas, semicolons (then decimal commas are taken too) or tabs.
    A row has a name or a pattern.

    Raises:
        UsageError: it cannot be read.
        SourceError: columns are unknown or missing, a row has no name or an impossible size, or a
            name stands twice; lists all of these.
    """
    try:
        lines = decoded(path.read_bytes()).splitlines()
    except OSError as error:
        raise UsageError(f"`mpp_table` {path} cannot be read: {error.strerror}") from error
    heading = lines[0] if lines else ""
    separator = next((s for s in ";\t" if s in heading), ",")
    columns = [column.strip().lower() for column in heading.split(separator)]
    problems = _column_problems(columns)
    if problems:
        raise SourceError.of(problems, f"`mpp_table` {path}")
    rows: dict[str, MppRow] = {}
    for number, cells in enumerate(csv.reader(lines[1:], delimiter=separator), 2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            row = _row(dict(zip(columns, map(str.strip, cells), strict=True)), separator)
            first = rows.setdefault(normalised(row.name), row)
            if first is not row:
                raise ValueError(f"{row.name} stands in an earlier row too")
        except ValueError as error:
            wrong = f"has {counted(len(cells), 'column')}" if len(cells) != len(columns) else error
            problems.append(f"line {number}: {wrong}")
    if not rows and not problems:
        problems.append("it has no rows")
    if problems:
        raise SourceError.of(problems, f"`mpp_table` {path}")
    return MppTable(str(path), tuple(rows.values()))


def _column_problems(columns: Sequence[str]) -> list[str]:
    known = f"the first line names the columns: {' or '.join(_COLUMNS[:2])}, and mpp"
    problems = [f"there is no column {name!r}; {known}" for name in columns if name not in _COLUMNS]
    if "mpp" not in columns or not {"name", "pattern"} & set(columns):
        problems.append(f"a column is missing; {known}")
    problems += [f"the column {n} stands twice" for n in _COLUMNS if columns.count(n) > 1]
    return problems


def _row(cells: dict[str, str], separator: str) -> MppRow:
    """Raises ValueError, with what is wrong."""
    name, pattern = cells.get("name", ""), cells.get("pattern", "")
    if bool(name) == bool(pattern):
        raise ValueError("it has both a name and a pattern" if name else "it has no name")
    if {"*", "?"} & set(name):
        raise ValueError(f"{name!r} is a pattern: write it in a column of that heading")
    text = cells["mpp"] if separator == "," else cells["mpp"].replace(",", ".")
    try:
        mpp_um = float(text)
    except ValueError:
        mpp_um = math.nan
    if not is_pixel_size(mpp_um):
        raise ValueError(
            f"{cells['mpp']!r} is no pixel size of a slide: give um per pixel, "
            f"{MIN_MPP_UM:g} to {MAX_MPP_UM:g}"
        )
    return MppRow(name or pattern, mpp_um, is_pattern=bool(pattern))
