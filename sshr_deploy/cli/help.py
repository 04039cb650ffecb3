"""The text of `--help`: readable at 60 columns, coloured on a terminal, plain elsewhere."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from sshr_deploy.cli.config import reason_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GENERAL = "General"
"""Panel of the options that every command has."""
_MAX_WIDTH = 100
_ARGUMENTS, _OWN = "Arguments", "Options"
_ALWAYS = (_ARGUMENTS, _OWN, GENERAL)
_FEW = 2
"""So many options of a topic stand among the command's own."""
_PLACEHOLDERS = {"int": "N", "float": "NUMBER", "str": "TEXT", "Path": "PATH", "path": "PATH"}
_PLACEHOLDERS |= {"file": "FILE", "directory": "FOLDER"}


class Entry(NamedTuple):
    """An argument or option as help shows it."""

    panel: str
    names: str
    """"--help, -h"; of an argument its placeholder."""
    placeholder: str
    """What stands for the value, such as PATH; empty for arguments and for options without one."""
    help: str
    facts: tuple[str, ...]
    """Such as "required", "choices: a, b", "0 to 1" and "default: 8"."""


class Command(TyperCommand):
    """A command with this help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does it; a value that does not fit is told of without the validator's words."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = reason_of(error)
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Print it on stdout."""
        _print_help(self, ctx)


class Group(TyperGroup):
    """A group of commands with this help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Print it on stdout."""
        _print_help(self, ctx)


def entries(command: TyperCommand | TyperGroup, ctx: Any) -> list[Entry]:
    """Arguments and options of a command by panel: its own, those by topic, the general ones.

    Those that are required lead their panel.
    """
    found = [_entry(param, ctx) for param in command.get_params(ctx) if not _hidden(param)]
    sizes = Counter(entry.panel for entry in found)
    topics = [panel for panel in sizes if panel not in _ALWAYS and sizes[panel] > _FEW]
    found = [
        entry if entry.panel in (*_ALWAYS, *topics) else entry._replace(panel=_OWN)
        for entry in found
    ]
    order = [*_ALWAYS[:-1], *topics, GENERAL]
    return sorted(
        found, key=lambda entry: (order.index(entry.panel), "required" not in entry.facts)
    )


def first_paragraph(text: str | None) -> str:
    """Of a docstring, as one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _hidden(param: object) -> bool:
    return bool(getattr(param, "hidden", False))


def _entry(param: Any, ctx: Any) -> Entry:
    if not isinstance(param, TyperOption | TyperArgument):
        raise TypeError(f"{param!r} is neither an option nor an argument of typer")
    help_text = " ".join((param.help or "").split())
    record = param.get_help_record(ctx)
    kind = record[0].rpartition("<")[2].rstrip(">") if record and "<" in record[0] else ""
    kind = kind.removeprefix("list[").removesuffix("]").removesuffix(" range")
    facts = tuple(_facts(param, kind))
    if isinstance(param, TyperArgument):
        dots = "..." if param.nargs == -1 else ""
        name = (param.metavar or param.name.upper()).removesuffix("...")
        return Entry(_ARGUMENTS, name + dots, "", help_text, facts)
    names = sorted((*param.opts, *param.secondary_opts), key=len, reverse=True)
    placeholder = "" if param.is_flag else param.metavar or _placeholder(param.name, kind)
    panel = GENERAL if param.name == "help" else param.rich_help_panel or _OWN
    return Entry(panel, ", ".join(names), placeholder, help_text, facts)


def _placeholder(name: str, kind: str) -> str:
    return _PLACEHOLDERS.get(kind, name.upper().replace("_", "-"))


def _facts(param: TyperOption | TyperArgument, kind: str) -> Iterator[str]:
    if param.required:
        yield "required"
    if "|" in kind:
        yield f"choices: {', '.join(kind.split('|'))}"
    match param.min, param.max:
        case None, None:
            pass
        case least, None:
            yield f"at least {least}"
        case None, most:
            yield f"at most {most}"
        case least, most:
            yield f"{least} to {most}"
    default = param.default
    if isinstance(param.show_default, str):
        yield f"default: ({param.show_default})"
    elif param.show_default and default is not None and default is not False and default != "":
        yield f"default: {default.value if isinstance(default, Enum) else default}"


def _print_help(command: TyperCommand | TyperGroup, ctx: Any) -> None:
    from rich.text import Text

    from sshr_deploy.cli.terminal import Terminal

    console = Terminal()
    console.width = min(console.width, _MAX_WIDTH)
    usage = " ".join(re.sub("[{}]", "", piece) for piece in command.collect_usage_pieces(ctx))
    _print_wrapped(console, Text.assemble(("Usage:", "bold"), f" {ctx.command_path} {usage}"))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        console.print()
        _print_wrapped(console, Text(" ".join(paragraph.split())))
    if isinstance(command, TyperGroup):
        _print_commands(console, command, ctx)
    panel = ""
    for entry in entries(command, ctx):
        if entry.panel != panel:
            panel = entry.panel
            console.print(Text(f"\n{panel}:", style="bold"))
        name = Text.assemble((entry.names, "bold cyan"), " ", (entry.placeholder, "cyan"))
        _print_wrapped(console, name, indent=2)
        facts = Text(" ".join(f"[{fact}]" for fact in entry.facts), style="dim")
        words = [text for text in (Text(entry.help), facts) if text]
        _print_wrapped(console, Text(" ").join(words), indent=6)
    if command.epilog:
        console.print()
        _print_wrapped(console, Text(" ".join(command.epilog.split())))


def _print_commands(console: Console, group: TyperGroup, ctx: Any) -> None:
    from rich.text import Text

    console.print(Text("\nCommands:", style="bold"))
    names = group.list_commands(ctx)
    width = max(map(len, names)) + 4
    for name in names:
        command = group.get_command(ctx, name)
        if command is not None and not command.hidden:
            line = Text.assemble("  ", (name.ljust(width - 2), "bold cyan"))
            told = Text(first_paragraph(command.help))
            _print_wrapped(console, told, indent=width, first=line)


def _print_wrapped(
    console: Console, text: Text, *, indent: int = 0, first: Text | None = None
) -> None:
    """Without blanks at the ends of lines; `first` takes the place of the first line's indent."""
    from rich.text import Text

    for line in text.wrap(console, console.width - indent):
        line.rstrip()
        console.print((first or Text(" " * indent)) + line)
        first = None
