"""Options of a command from a TOML file, `--config run.toml`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import typer

from sshr_deploy.cli.options import NAME_OR_FILE
from sshr_deploy.errors import UsageError
from sshr_deploy.toml_file import read_toml

_NEAR = 0.75
"""Names as near to a wrong one as this are all offered; of those further off the nearest one."""


def read_config(path: Path, ctx: typer.Context, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Values by parameter for the command of `ctx`, each as the command line would have it.

    A key is the long name of an option without its dashes, or the name of an argument; `_` stands
    for `-` as well. Keys ahead of all tables are for every command, those of a table such as
    [infer] or [benchmark.latency] for that one, and go before. Relative paths begin at the folder
    of the file; commands, patterns and addresses are taken as they stand.

    Raises:
        UsageError: the file cannot be read; a key is no option of this command or is given twice
            in one table, or its value does not fit.
    """
    document = read_toml(path, "file of options", UsageError)
    params = dict(_params(ctx))
    values = {}
    for place, key, value in _given(document, ctx, path):
        name = key.replace("_", "-")
        if name not in params:
            command = " ".join(_command_words(ctx))
            near = _nearest(name, params)
            raise UsageError(f"{place}: {command} has no option {key!r}{near}")
        param = params[name]
        kind = _scalar(annotations[param.name])
        taken = _value(value, kind, f"{place}: {key}")
        if (param.multiple or param.nargs == -1) and not isinstance(taken, list):
            taken = [taken]
        elif isinstance(taken, list) and not (param.multiple or param.nargs == -1):
            raise UsageError(f"{place}: {key} takes one value, not a list")
        try:
            param.process_value(ctx, taken)
        except typer.BadParameter as error:
            raise UsageError(f"{place}: {key}: {reason_of(error)}") from error
        if kind is Path or param.metavar == NAME_OR_FILE:
            taken = _from_folder(taken, path.parent, any_name=kind is Path)
        values[param.name] = taken
    return values


def reason_of(error: typer.BadParameter) -> str:
    """Why a value does not fit, without the words that the validator sets ahead of it."""
    return error.message.removeprefix("Value error, ").removesuffix(".")


def _params(ctx: typer.Context) -> Iterator[tuple[str, Any]]:
    """Arguments and options that a file may give, by key."""
    for param in ctx.command.get_params(ctx):
        if not param.is_eager:  # these end the command, or are --config itself
            longest = max(param.opts, key=len)
            named = longest.startswith("--")
            yield (longest.removeprefix("--") if named else param.name.replace("_", "-")), param


def _given(
    document: dict[str, Any], ctx: typer.Context, path: Path
) -> Iterator[tuple[str, str, Any]]:
    """Place, key and value of what the file has for this command, the nearest table last."""
    table, group, words = document, ctx.find_root().command, list[str]()
    for word in (*_command_words(ctx), None):
        place = f"{path} [{'.'.join(words)}]" if words else str(path)
        commands = getattr(group, "commands", {})
        keys: dict[str, str] = {}
        for key, value in table.items():
            if not isinstance(value, dict):
                first = keys.setdefault(key.replace("_", "-"), key)
                if first != key:
                    raise UsageError(f"{place}: {first} and {key} are the same option; keep one")
                yield place, key, value
            elif key not in commands:
                raise UsageError(
                    f"{place}: [{key}] is no command{_nearest(key, commands) or '; leave it out'}"
                )
        if word is not None:
            group, table = commands[word], table.get(word, {})
            words.append(word)


def _command_words(ctx: typer.Context) -> list[str]:
    """Such as benchmark, latency."""
    words: list[str] = []
    context: Any = ctx
    while context.parent is not None:
        words.insert(0, context.info_name)
        context = context.parent
    return words


def _nearest(name: str, known: Collection[str]) -> str:
    names = list(known)
    near = get_close_matches(name, names, cutoff=_NEAR) or get_close_matches(name, names, 1)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _scalar(annotation: Any) -> type:
    """The type of one value: of `Annotated[list[Path] | None, ...]` it is `Path`."""
    while args := [arg for arg in get_args(annotation) if arg is not NoneType]:
        annotation = args[0]
    return annotation if isinstance(annotation, type) else str


def _value(value: object, kind: type, place: str) -> Any:
    if isinstance(value, list):
        if any(isinstance(item, list) for item in value):
            raise UsageError(f"{place}: give one list, without lists in it")
        return [_value(item, kind, place) for item in value]
    if isinstance(value, bool) != (kind is bool):
        need = "true or false" if kind is bool else "a value; it is no switch"
        raise UsageError(f"{place}: give {need}")
    if not isinstance(value, str | int | float):
        raise UsageError(f"{place}: give a text or a number, not {value}")
    if issubclass(kind, str | Path) and not isinstance(value, str):
        raise UsageError(f"{place}: give a text in quotes, not {value}")
    if kind is Path and not value:
        raise UsageError(f"{place}: give a path; . is the folder of this file")
    return value


def _from_folder(value: Any, folder: Path, *, any_name: bool) -> Any:
    """Paths, or a path, that begin at `folder`; without `any_name` those alone that end in .toml.

    "-" stays as it is.
    """
    if isinstance(value, list):
        return [_from_folder(item, folder, any_name=any_name) for item in value]
    if value == "-" or not (any_name or value.endswith(".toml")):
        return value
    return str(folder / Path(value).expanduser())
