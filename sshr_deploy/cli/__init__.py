"""The `sshr-deploy` command; one file a sub-command, each importing its work only when called."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from sshr_deploy.cli import (
    benchmark_compare,  # noqa: F401  adds itself to benchmark_app
    benchmark_host,  # noqa: F401  likewise
    benchmark_int8,  # noqa: F401  likewise
    benchmark_kernels,  # noqa: F401  likewise
    benchmark_latency,  # noqa: F401  likewise
    benchmark_pipeline,  # noqa: F401  likewise
    benchmark_plot,  # noqa: F401  likewise
    benchmark_robustness,  # noqa: F401  likewise
    benchmark_roofline,  # noqa: F401  likewise
    benchmark_slides,  # noqa: F401  likewise
    benchmark_throughput,  # noqa: F401  likewise
    benchmark_training,  # noqa: F401  likewise
)
from sshr_deploy.cli.adapt import adapt
from sshr_deploy.cli.benchmark import benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.doctor import doctor
from sshr_deploy.cli.engines import engines_app
from sshr_deploy.cli.evaluate import evaluate
from sshr_deploy.cli.export import export
from sshr_deploy.cli.help import Group
from sshr_deploy.cli.infer import infer
from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.pack import pack
from sshr_deploy.cli.queue import queue_app
from sshr_deploy.cli.train import train
from sshr_deploy.cli.view import view
from sshr_deploy.cli.watch import watch
from sshr_deploy.errors import ListedError, OutputError, SshrDeployError, UsageError, one_line
from sshr_deploy.version import __version__

_PROGRAM = "sshr-deploy"
_INTERRUPTED = 130  # typer's exit code where Ctrl-C ends a command that does not take it

app = typer.Typer(
    name=_PROGRAM,
    help="Take an SSHR tissue-segmentation network to the workstation beside a slide scanner.\n\n"
    "Research use only; not a medical device.",
    no_args_is_help=True,
    cls=Group,
    rich_markup_mode=None,  # errors in lines, not in a box; for help see `help`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 everything done; 1 some inputs failed, a run was interrupted or results "
    "could not be written, what is done is kept; 2 wrong usage or an unusable model; "
    "130 interrupted, nothing kept. All of them: docs/command-line.md.",
)
command(app, config=True)(train)
command(app, config=True)(adapt)
command(app, config=True)(evaluate)
command(app, config=True)(export)
command(app, config=True)(infer)
command(app, config=True)(watch)
command(app)(view)
command(app)(doctor)
command(app, config=True)(pack)
app.add_typer(benchmark_app)
app.add_typer(engines_app)
app.add_typer(queue_app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sshr-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit code."""
    # OpenMP reads it when torch is imported; runtime.machine.threads says what it is good for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # File names may hold what the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name=_PROGRAM)
        finally:
            if sys.stdout is not None:  # closed by whoever started us
                sys.stdout.flush()
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            sys.stderr.write("sshr-deploy: interrupted\n")
        raise
    except SshrDeployError as error:
        _fail(error)
    except BrokenPipeError:  # whoever reads our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:
            reason = (
                f"{error.strerror or error}; check the space on the disk and the current folder"
            )
            _fail(OutputError(reason))
        reason = f"{error.filename}: {error.strerror}; check the path and your rights to it"
        _fail(UsageError(reason))


def exit_code_of(error: SshrDeployError) -> int:
    """The exit code of a command that this error ends."""
    return 1 if isinstance(error, OutputError) else 2


def _fail(error: SshrDeployError) -> NoReturn:
    if isinstance(error, ListedError) and len(error.problems) > 1:
        for problem in error.problems:
            sys.stderr.write(as_options(one_line(problem)) + "\n")
    sys.stderr.write(f"sshr-deploy: error: {as_options(str(error))}\n")
    raise SystemExit(exit_code_of(error))
