"""`sshr-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.help import Group

benchmark_app = typer.Typer(
    cls=Group,
    name="benchmark",
    help="Measure a bundle, training or the GPU kernels on this machine.",
    no_args_is_help=True,
)

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="File for raw samples, environment and figures."),
]


@benchmark_app.callback()
def _group() -> None:
    """Measure a bundle, training or the GPU kernels on this machine."""
