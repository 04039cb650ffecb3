"""Tables of figures that benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def print_figures(
    console: Console,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
) -> None:
    """Print a title and a table below it: names, then figures; see `shown_figure`."""
    from rich.table import Table

    from sshr_deploy.cli.tables import print_table

    table = Table(*headings)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, *figures in rows:
        table.add_row(str(name), *map(shown_figure, figures))
    console.print(title)
    print_table(console, table)


def shown_figure(figure: str | float | None) -> str:
    """With three digits or so; None stands for what is not reported."""
    if figure is None:
        return "not reported"
    if isinstance(figure, str):
        return figure
    return f"{figure:.0f}" if figure >= 1000 else f"{figure:.3g}" if figure < 1 else f"{figure:.2f}"


def quartiles(row: Mapping[str, float | None]) -> str:
    """ "10.1-10.3" of a row with `p25_ms` and `p75_ms`."""
    return f"{shown_figure(row['p25_ms'])}-{shown_figure(row['p75_ms'])}"
