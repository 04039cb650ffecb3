"""`sshr-deploy engines list|verify|clean`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.commands import command
from sshr_deploy.cli.help import Group
from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.options import BundleArgument
from sshr_deploy.errors import one_line

if TYPE_CHECKING:
    from sshr_deploy.runtime.engines.states import EngineState

engines_app = typer.Typer(
    cls=Group,
    name="engines",
    help="Engines that machines built and qualified for a bundle: list, verify, clean.",
    no_args_is_help=True,
)


@command(engines_app, "list")
def list_engines(
    bundle: BundleArgument,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records as JSON instead of the table.")
    ] = False,
) -> None:
    """Every engine that was built or qualified, and whether this machine can use it.

    Ready: built from this model by this library for this GPU or processor, and equal to the
    reference within its tolerance. Refused: compared, and not equal. Stale: made for something
    else; the table says what changed. Damaged: a file was changed or lost.
    """
    states = _states(bundle)
    if as_json:
        typer.echo(json.dumps([_document(state) for state in states], indent=2))
    elif states:
        _print_table(states)
    else:
        typer.echo("no engines yet: infer and export make and qualify what they need")


@command(engines_app)
def verify(bundle: BundleArgument) -> None:
    """Check every file of the bundle and of its engines against its hash.

    Exit codes: 0 all engines can be used here; 1 some cannot (each is named, with the reason); 2
    the bundle itself is altered or incomplete.
    """
    bad = 0
    for state in _states(bundle):
        text = as_options(f": {state.reason}") if state.reason else ""
        typer.echo(one_line(f"{state.entry.path.name}: {state.state}{text}"))
        bad += bool(state.reason)
    typer.echo(
        f"{bundle}: whole; {bad or 'no'} engine{'' if bad == 1 else 's'} that cannot be used"
    )
    raise typer.Exit(1 if bad else 0)


@command(engines_app)
def clean(
    bundle: BundleArgument,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove the engines that can be used here, too.")
    ] = False,
) -> None:
    """Remove engines that this machine cannot use; what is needed again is built again.

    What builds that were killed left is removed, too.
    """
    from sshr_deploy.errors import BundleError
    from sshr_deploy.runtime.engines.states import State
    from sshr_deploy.runtime.engines.store import EngineStore

    states, store = _states(bundle), EngineStore(bundle)
    freed, removed, kept = store.remove_abandoned(), 0, []
    for state in states:
        if state.state is State.READY and not everything:
            continue
        try:
            freed += store.remove(state.entry)
            removed += 1
        except BundleError as error:
            kept.append(str(error))
    if everything:
        try:
            freed += store.remove_caches()
        except BundleError as error:
            kept.append(str(error))
    for reason in kept:
        typer.echo(f"sshr-deploy: error: {reason}", err=True)
    typer.echo(f"removed {removed} of {len(states)}, {freed / 1e6:.1f} MB")
    raise typer.Exit(1 if kept else 0)


def _states(bundle: BundleArgument) -> list[EngineState]:
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.runtime.engines.states import engine_states

    return engine_states(load_bundle(bundle))


def _document(state: EngineState) -> dict[str, object]:
    record = state.entry.record
    return {
        "name": state.entry.path.name,
        "state": state.state.value,
        "reason": as_options(state.reason),
        "key": None if state.entry.key is None else asdict(state.entry.key),
        "record": None if record is None else record.model_dump(mode="json", exclude={"key"}),
    }


def _print_table(states: list[EngineState]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console

    table = Table("engine", "precision", "for", "state", "agreement", "MB", "made")
    for column in (4, 5):
        table.columns[column].justify = "right"
    for item in states:
        record, key = item.entry.record, item.entry.key
        engine, _, precision = item.entry.path.name.rpartition("-")[0].rpartition("-")
        size = sum(entry.bytes for entry in record.files.values()) if record else 0
        table.add_row(
            escape(one_line(key.engine if key else engine)),
            escape(one_line(key.precision if key else precision)),
            escape(one_line(key.inputs.removeprefix("fields of ") if key else "")),
            item.state.value,
            f"{record.qualification.mask_agreement:.3%}" if record else "",
            f"{size / 1e6:.1f}",
            record.created_utc[:10] if record else "",
        )
    console = stdout_console()
    print_table(console, table)
    for item in states:
        if item.reason:
            line = as_options(one_line(f"{item.entry.path.name}: {item.reason}"))
            console.print(line, markup=False)
