"""`sshr-deploy infer --dry-run`: what a run would do, how long, and on how much disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sshr_deploy.cli.engine import open_model
from sshr_deploy.cli.option_names import as_options

if TYPE_CHECKING:
    from sshr_deploy.runtime.pipeline.estimate import Estimate
    from sshr_deploy.runtime.pipeline.preview import Preview
    from sshr_deploy.runtime.pipeline.sources import Sources
    from sshr_deploy.runtime.pipeline.spec import RunSpec

_WORDS = {"compute": "to compute", "done": "done earlier", "refused": "refused"}


def dry_run(sources: Sources, out: Path, spec: RunSpec, *, as_json: bool, quiet: bool) -> None:
    """Print what a run would do; nothing is written into `out`.

    Raises:
        typer.Exit: the exit code that the run would have, as far as can be told.
        SshrDeployError: what would refuse the run.
    """
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.inputs import notes_on
    from sshr_deploy.runtime.machine.clock import Stopwatch
    from sshr_deploy.runtime.pipeline.estimate import estimate_run
    from sshr_deploy.runtime.pipeline.preview import previews
    from sshr_deploy.runtime.pipeline.work import checked_inputs

    watch = Stopwatch()
    found = checked_inputs(sources, out, spec.settings)
    for line in () if quiet else notes_on(found, spec.settings):
        say(line)
    slides = any(item.kind == "slide" for item in found.inputs)
    with open_model(spec, quiet=quiet, for_slides=slides) as opened:
        open_s = watch.seconds()
        context = opened.context(opened.settings, as_options)
        inputs = list(previews(found, out, context))
        estimate = estimate_run(inputs, context)
    free_bytes = _free_bytes(out)
    if as_json:
        typer.echo(json.dumps(_document(inputs, estimate, open_s, free_bytes), indent=2))
    else:
        _print(inputs, estimate, open_s, free_bytes)
    refused = any(preview.fate == "refused" for preview in inputs)
    raise typer.Exit(1 if refused or estimate.peak_bytes > free_bytes else 0)


def _free_bytes(out: Path) -> int:
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    return shutil.disk_usage(folder).free


def _document(
    inputs: list[Preview], estimate: Estimate, open_s: float, free_bytes: int
) -> dict[str, Any]:
    entries = []
    for preview in inputs:
        entry = asdict(preview)
        del entry["item"]
        entry["path"] = str(preview.path.absolute())
        entry["estimated_s"] = estimate.by_input_s.get(preview.path)
        entries.append(entry)
    return {
        "schema_version": 1,
        "inputs": entries,
        "estimated_s": open_s + estimate.seconds,
        "engine_open_s": open_s,
        "result_bytes": estimate.result_bytes,
        "peak_bytes": estimate.peak_bytes,
        "free_bytes": free_bytes,
        "sampled": estimate.sampled,
        "sampling_s": estimate.sampling_s,
    }


def _print(inputs: list[Preview], estimate: Estimate, open_s: float, free_bytes: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console
    from sshr_deploy.errors import counted

    table = Table("input", "format", "size px", "um/px", "from", "mm²", "units", "time")
    for preview in inputs:
        size, amount, mm2 = preview.size_px, preview.amount, preview.tissue_mm2
        seconds = estimate.by_input_s.get(preview.path)
        table.add_row(
            escape(preview.path.name),
            escape(preview.reader),
            "" if size is None else f"{size[0]} x {size[1]}",
            "" if preview.mpp is None else f"{preview.mpp.x_um:.4g}",
            "" if preview.mpp is None else escape(preview.mpp.source),
            "" if mm2 is None else f"{mm2:.2f}",
            "" if amount is None else str(amount.units),
            _WORDS[preview.fate] if seconds is None else _duration(seconds),
        )
    console = stdout_console()
    print_table(console, table)
    for preview in inputs:
        notes = (preview.reason and f"refused: {preview.reason}", preview.concern, preview.misfit)
        for note in filter(None, notes):
            line = note if note.startswith("refused") else f"{preview.path.name}: {note}"
            console.print(line, markup=False, soft_wrap=True)
    counts = {fate: sum(p.fate == fate for p in inputs) for fate in _WORDS}
    typer.echo(", ".join(f"{counts[fate]} {words}" for fate, words in _WORDS.items()))
    typer.echo(
        f"estimated: {_duration(open_s + estimate.seconds)}, {_size(estimate.result_bytes)} of "
        f"results, {_size(estimate.peak_bytes)} at most while it runs, {_size(free_bytes)} free"
    )
    if estimate.peak_bytes > free_bytes:
        typer.echo("the disk would be full: free space, or choose another --out")
    typer.echo(
        f"by {counted(estimate.sampled, 'input')} that were done in part for "
        f"{_duration(estimate.sampling_s)} on this machine; opening the engine took "
        f"{_duration(open_s)}; nothing was written into the results"
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _size(count: int) -> str:
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6)):
        if count >= bytes_each:
            return f"{count / bytes_each:.1f} {unit}"
    return f"{count / 1000:.0f} kB"
