"""`sshr-deploy doctor`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.options import BUNDLE_HELP

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sshr_deploy.runtime.doctor.report import (
        Ability,
        ArtifactFacts,
        GpuFacts,
        Processor,
        Report,
    )

_TABLE_WIDTH = 60  # columns of a terminal; narrower ones, and files, get lines


def doctor(
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="BUNDLE", help=f"{BUNDLE_HELP} Verified as well.", show_default=False
        ),
    ] = None,
    slides: Annotated[
        Path | None,
        typer.Option(
            "--slides",
            help="With --model: a slide, or a folder of them. Says of each whether it looks like "
            "the slides that the model knows; the exit code does not depend on it.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole report as JSON instead of tables.")
    ] = False,
) -> None:
    """Say whether this machine is ready, what each engine lacks, and the commands that mend it.

    Tries what is installed, each part in a process of its own; nothing is changed. Exit code 0:
    infer can run here, with the bundle if one is named; 1: it cannot; 2: wrong usage.
    """
    from sshr_deploy.cli.terminal import Terminal
    from sshr_deploy.errors import UsageError
    from sshr_deploy.runtime.doctor.examine import examine

    if slides is not None and model is None:
        raise UsageError("--slides needs --model: slides are held against what a model knows")
    with Terminal(stderr=True).status("trying what is installed"):
        report = examine(model, slides)
    if as_json:
        typer.echo(as_options(json.dumps(report.document(), indent=2)))
    else:
        _print(report, Terminal())
    raise typer.Exit(0 if report.ready else 1)


def _print(report: Report, console: Console) -> None:
    from rich.text import Text

    from sshr_deploy.cli.tables import print_table

    console.print(_machine(report))
    if not console.is_terminal or console.width < _TABLE_WIDTH:
        for line in _ability_lines(report):
            console.print(Text(as_options(line)))
    else:
        print_table(console, _abilities(report))
    for look in report.slides:
        score = "" if look.score is None else f" (fit score {look.score:.2f})"
        console.print(as_options(f"{look.path}: {look.words}{score}"), markup=False)
    for conflict in report.conflicts:
        stops = f" (stops {', '.join(conflict.breaks)})" if conflict.breaks else ""
        console.print(Text(as_options(f"conflict: {conflict.reason}{stops}")))
    mends = _mends(report)
    if mends:
        console.print("to mend:")
    for commands, names in mends.items():
        console.print(Text(f"  {', '.join(dict.fromkeys(names))}"))
        for command in commands:
            console.print(Text(f"    {command}"), soft_wrap=True)
    if report.ready:
        verdict = f"ready: infer can use {', '.join(report.usable)}"
    else:
        verdict = f"not ready: infer cannot run here{_why_not(report)}"
    console.print(Text(as_options(verdict)))


def _machine(report: Report) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    machine = report.machine
    rows = [
        ("sshr-deploy", f"{report.version}, Python {machine.python}, {machine.platform}"),
        ("processor", _processor(machine.processor)),
        ("memory", "unknown" if machine.memory_mib is None else _gib(machine.memory_mib)),
        *((f"GPU {facts.gpu.index}", _gpu(facts)) for facts in report.gpus),
        *([] if report.gpus else [("GPU", report.no_gpu)]),
        ("libraries", ", ".join(f"{k} {v}" for k, v in report.libraries.items()) or "none"),
        ("providers", ", ".join(report.onnxruntime.providers) or "none"),
    ]
    if report.bundle is not None:
        rows.append(("bundle", f"{report.bundle.path}: {report.bundle.error or 'whole'}"))
        rows += [("", _artifact(item)) for item in report.bundle.artifacts]
        rows += [
            ("", f"{_artifact(item)}, fields of {report.bundle.field_px} px")
            for item in report.bundle.field_artifacts
        ]
        if report.bundle.error is None and not report.bundle.field_artifacts:
            rows.append(("", "no graphs for fields: infer has `mode` reference alone"))
    for name, text in rows:
        grid.add_row(name, Text(as_options(text)))
    return grid


def _artifact(item: ArtifactFacts) -> str:
    proof = "" if item.qualified else ", not qualified by its export"
    return f"{item.precision} {item.file} for {', '.join(item.engines)}{proof}"


def _processor(processor: Processor) -> str:
    kinds = {"AVX2": processor.avx2, "AVX-512": processor.avx512, "VNNI": processor.vnni}
    said = [name if has else f"no {name}" for name, has in kinds.items() if has is not None]
    cores = "1 core" if processor.cores == 1 else f"{processor.cores} cores"
    return ", ".join([processor.name, cores, *said])


def _gpu(facts: GpuFacts) -> str:
    gpu = facts.gpu
    memory = _gib(gpu.memory_mib) if gpu.memory_mib else "memory unknown"
    kernels = [
        f"{item.op} {item.available} of {item.total}" if item.reason is None else item.reason
        for item in facts.kernels
    ]
    return (
        f"{gpu.name}, SM {gpu.sm // 10}.{gpu.sm % 10}, {memory}, driver {gpu.driver}; "
        f"kernels: {', '.join(kernels)}"
    )


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"


def _abilities(report: Report) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("engine", "ready", "what it lacks, or what was tried")
    for group, abilities in (("engine", report.engines), ("command", report.commands)):
        if group == "command":
            table.add_section()
        for ability in abilities:
            table.add_row(
                ability.name,
                "yes" if ability.ready else "no",
                Text(as_options("\n".join(_told(ability, report)))),
            )
    return table


def _ability_lines(report: Report) -> Iterator[str]:
    """The table's content as lines, for terminals that are too narrow for it."""
    for ability in (*report.engines, *report.commands):
        yield f"{ability.name}: {'ready' if ability.ready else 'not ready'}"
        yield from (f"  {line}" for line in _told(ability, report))


def _told(ability: Ability, report: Report) -> Iterator[str]:
    for lack in ability.lacks:
        yield "an NVIDIA GPU" if lack.reason == report.no_gpu else lack.reason
    if ability.ready:
        yield from ability.tried
        if ability.not_tried:
            yield f"not tried: {ability.not_tried}"
    yield from ability.notes
    engines = [engine.name for engine in report.engines]
    if report.bundle is not None and report.bundle.error is None and ability.name in engines:
        precisions = report.bundle.precisions(ability.name)
        yield f"in the bundle: {', '.join(precisions) or 'nothing for it'}"
        if of_fields := report.bundle.precisions(ability.name, of_fields=True):
            yield f"for fields: {', '.join(of_fields)}"


def _mends(report: Report) -> Mapping[tuple[str, ...], list[str]]:
    """Lines for a shell, and what each mends."""
    mends: dict[tuple[str, ...], list[str]] = {}
    for conflict in report.conflicts:
        if conflict.mend and not conflict.breaks:  # else its engines say it
            mends.setdefault(conflict.mend, []).append(conflict.name)
    for ability in (*report.engines, *report.commands):
        for lack in ability.lacks:
            if lack.mend:
                mends.setdefault(lack.mend, []).append(ability.name)
    bundle = report.bundle
    if bundle is not None and (bundle.error is not None or not report.usable):
        again = f"sshr-deploy export CHECKPOINT --out {shlex.quote(bundle.path)} --overwrite"
        mends.setdefault((again,), []).append("bundle")
    return mends


def _why_not(report: Report) -> str:
    if report.bundle is not None and report.bundle.error is not None:
        return ", the bundle is not whole"
    infer = next(command for command in report.commands if command.name == "infer")
    if infer.ready:
        return ", the bundle has nothing for an engine that is ready"
    return ""
