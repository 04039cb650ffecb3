"""Tables of `sshr-deploy evaluate`, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SCORE_NAMES = {
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "label_accuracy": "label accuracy",
    "exact_match": "exact match of labels",
    "seam_ratio": "seams (1 is none)",
}


def print_scores(document: dict[str, Any]) -> None:
    """Tables on stdout: by class, over all, confusion in percent of the true class's pixels."""
    from rich.markup import escape
    from rich.table import Table

    from sshr_deploy.cli.terminal import stdout_console

    console = stdout_console()
    scored = {document["settings"]["mode"]: document}
    if "reference" in document:
        scored["reference"] = document["reference"]
    both = len(scored) > 1
    names = [escape(entry["name"]) for entry in document["classes"]]
    headings = [f"{s}, {mode}" if both else s for mode in scored for s in ("IoU", "Dice")]
    table = Table("class", *headings, "share of truth")
    for index, name in enumerate(names):
        entries = [figures["classes"][index] for figures in scored.values()]
        scores = (_shown(entry[key]) for entry in entries for key in ("iou", "dice"))
        table.add_row(name, *scores, f"{entries[0]['truth_share']:.1%}")
    _print_right_aligned(console, table)
    totals = Table("score", *(scored if both else ["value"]))
    for key, name in _SCORE_NAMES.items():
        totals.add_row(name, *(_shown(figures["scores"][key]) for figures in scored.values()))
    _print_right_aligned(console, totals)
    for mode, figures in scored.items():
        of_mode = f", {mode}" if both else ""
        console.print(f"predicted class, in % of the true class's pixels{of_mode}:")
        _print_right_aligned(console, _confusion_table(names, figures["confusion"]["pixels"]))
    split, engine = document["split"], document["engine"]
    seconds = sum(figures["seconds"] for figures in scored.values())
    console.print(
        f"{split['images']} images, {split['scored_pixels']} pixels scored, "
        f"{seconds:.1f} s with {engine['engine']} {engine['precision']}"
    )


def _shown(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _confusion_table(names: list[str], pixels: list[list[int]]) -> Table:
    """Percent of each true class's pixels; without the background column where it is empty."""
    from rich.table import Table

    columns = [*names, "background"] if any(row[-1] for row in pixels) else names
    table = Table("truth", *columns)
    for name, row in zip(names, pixels, strict=True):
        shares = (f"{100 * n / sum(row):.1f}" if any(row) else "-" for n in row)
        table.add_row(name, *list(shares)[: len(columns)])
    return table


def _print_right_aligned(console: Console, table: Table) -> None:
    from sshr_deploy.cli.tables import print_table

    for column in table.columns[1:]:
        column.justify = "right"
    print_table(console, table)
