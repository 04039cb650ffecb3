"""`sshr-deploy pack`."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.options import ModelOption, QuietOption
from sshr_deploy.errors import UsageError
from sshr_deploy.pack.targets import TARGETS, TargetName

_THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def _verify(folder: Path | None) -> None:
    if folder is not None:
        from sshr_deploy.pack.install import verify

        raise typer.Exit(verify(folder))


def pack(
    target: Annotated[TargetName, typer.Option(help="The workstation and what it runs on.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the kit to write.")],
    python: Annotated[
        str,
        typer.Option(
            metavar="VERSION",
            help="Version of the workstation's Python.",
            show_default="this one's",
        ),
    ] = _THIS_PYTHON,
    max_part_mb: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            min=1,
            help="Split files above this many MB (1e6 bytes), for media that hold no larger ones.",
            show_default="no limit",
        ),
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Wheel of sshr-deploy itself.",
            show_default="built from this checkout",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the kit that is at --out.")
    ] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            "--verify",
            metavar="KIT",
            callback=_verify,
            is_eager=True,
            help="Check a kit instead: list every missing, changed and extra file, and exit.",
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Gather wheels, kernels and model for a workstation without internet.

    The kit is a folder with a hash for every file and install.py, which checks it before it
    installs anything. Packages are found by pip with your own configuration. A run that was stopped
    goes on when the same command is given again.
    """
    del verify
    from sshr_deploy.cli.console import say
    from sshr_deploy.pack.kit import PackSettings, work_folder
    from sshr_deploy.pack.kit import pack as write_kit

    if not re.fullmatch(r"3\.\d{1,2}", python):
        raise UsageError(f"--python {python} is no version such as {_THIS_PYTHON}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: keep what is fetched
    chosen = TARGETS[target]
    settings = PackSettings(chosen, python, wheel, max_part_mb, overwrite)
    try:
        kit = write_kit(model, out, settings, lambda text: None if quiet else say(text))
    except KeyboardInterrupt:
        say(
            f"interrupted; what was fetched is kept in {work_folder(out)}, the same command goes on"
        )
        raise typer.Exit(1) from None
    if chosen.note:
        say(f"{target.value}: {chosen.note}")
    if not quiet:
        typer.echo(
            f"{out}: {target.value}, Python {python}, {kit.wheels} wheels, {kit.bytes / 1e6:.1f} MB"
        )
        typer.echo(f"SHA-256 of kit.json: {kit.sha256}; compare it on the workstation")
