"""`sshr-deploy benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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


def batches_option(defaults: Mapping[bool, str]) -> Any:
    """`--batches`; `defaults` are those of patches (True) and of fields."""
    return typer.Option(
        metavar="N,N,...",
        help="Patches, or in seamless mode fields, in a call, with commas between.",
        show_default=f"{defaults[True]}; fields {defaults[False]}",
    )


@benchmark_app.callback()
def _group() -> None:
    """Measure a bundle, training or the GPU kernels on this machine."""
