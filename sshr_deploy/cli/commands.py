"""How a command is declared: options that several commands share, and those that all have."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from sshr_deploy.cli.config import read_config
from sshr_deploy.cli.help import GENERAL, Command

_NO_COLOR = "no_color"
_CONFIG = "config"
_NoColorOption = Annotated[
    bool,
    typer.Option(
        "--no-color",
        help="No colours on a terminal, as with the environment variable NO_COLOR; elsewhere "
        "there are none anyway.",
        rich_help_panel=GENERAL,
    ),
]


def command(
    app: typer.Typer, name: str | None = None, *, config: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to `app` as the command `name`, or of its own name.

    Its parameters are arguments and options as typer has them, or dataclasses whose fields are
    such; each command has `--no-color` too, and with `config` `--config`.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        groups: dict[str, type] = {}
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            kind = parameter.annotation
            if isinstance(kind, type) and is_dataclass(kind):
                groups[parameter.name] = kind
                parameters += _fields(kind)
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        no_color = _option(_NO_COLOR, _NoColorOption, False)
        if config:
            parameters.append(_option(_CONFIG, _config_option([*parameters, no_color]), None))
        parameters.append(no_color)

        @functools.wraps(function)
        def run(**values: Any) -> None:
            values.pop(_CONFIG, None)
            if values.pop(_NO_COLOR):
                os.environ["NO_COLOR"] = "1"  # rich reads it, and so do our other processes
            for parameter, kind in groups.items():
                names = [field.name for field in fields(kind)]
                values[parameter] = kind(**{name: values.pop(name) for name in names})
            function(**values)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {}  # those of the signature, which are no strings
        app.command(name, cls=Command)(run)
        return function

    return add


def _fields(kind: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for parameter in inspect.signature(kind).parameters.values():
        yield parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]
        )


def _option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _config_option(parameters: list[inspect.Parameter]) -> Any:
    annotations = {parameter.name: parameter.annotation for parameter in parameters}

    def take(ctx: typer.Context, path: Path | None) -> Path | None:
        if path is not None and not ctx.resilient_parsing:
            ctx.default_map = read_config(path, ctx, annotations)
        return path

    return Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            callback=take,
            is_eager=True,  # before the options that it gives
            help="Take options from a TOML file, by their names without the dashes; what is given "
            "here goes before. See docs/command-line.md.",
            rich_help_panel=GENERAL,
        ),
    ]
