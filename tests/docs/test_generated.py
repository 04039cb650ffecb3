"""The pages that are made from the code are those of today."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from sshr_deploy.cli import app

pytest.importorskip("torch")  # the recipe's fields are among them


def test_pages_are_those_of_the_code(
    docs_module: Callable[[str], ModuleType], repo_root: Path
) -> None:
    for name, text in docs_module("generate").pages().items():
        there = (repo_root / "docs" / name).read_text("utf-8")
        assert there == text, f"run `python docs/generate.py`: docs/{name} is not of this code"


def test_commands_page_has_every_command_and_option(repo_root: Path) -> None:
    page = (repo_root / "docs" / "commands.md").read_text("utf-8")
    sections = dict(re.findall(r"^## ([\w -]+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    known = dict(commands(typer.main.get_command(app)))
    assert list(sections) == list(known)
    for name, command in known.items():
        names = {max(param.opts, key=len) for param in command.params}
        options = {option for option in names if option.startswith("--")}
        shown = set(re.findall(r"^\| `(--[\w-]+)", sections[name], re.MULTILINE))
        assert shown == options, name


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command
