"""Messages of the library name settings; the command line names its options instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from sshr_deploy.cli import app
from sshr_deploy.cli.option_names import as_options

LIBRARY = ("runtime", "export", "train", "benchmarks", "sshr_deploy")
OWN_PROGRAMS = ("sshr_deploy/cli/", "sshr_deploy/pack/install.py", "runtime/doctor/")
SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")


def options() -> set[str]:
    """All options of all commands, "--mpp" and so on."""

    def walk(command: object) -> Iterator[str]:
        for sub in getattr(command, "commands", {}).values():
            yield from walk(sub)
        for parameter in getattr(command, "params", ()):
            yield from parameter.opts

    return {name for name in walk(typer.main.get_command(app)) if name.startswith("--")}


def messages(root: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each string of the library that is no docstring."""
    for folder in LIBRARY:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if name.startswith(OWN_PROGRAMS):
                continue
            tree = ast.parse(path.read_text("utf-8"))
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                match node:
                    case ast.Constant(value=str(text)) if id(node) not in docs:
                        yield f"{name}:{node.lineno}", text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("give it with `mpp` and `force_mpp`", "give it with --mpp and --force-mpp"),
        (
            "run `make kernels`, or `sshr-deploy doctor`",
            "run `make kernels`, or `sshr-deploy doctor`",
        ),
    ],
)
def test_settings_become_options(text: str, shown: str) -> None:
    assert as_options(text) == shown


def test_every_setting_in_a_message_is_an_option(repo_root: Path) -> None:
    known = options()
    named = [(place, name) for place, text in messages(repo_root) for name in SETTING.findall(text)]
    assert len(named) > 30
    assert [(place, name) for place, name in named if as_options(f"`{name}`") not in known] == []


NAMED = ("export it with --engine", "`sshr-deploy ", "pip install", "--nproc-per-node", "usage: ")
"""Parts of messages that name a command with its options, which is right in the library too."""
SOURCES = ("--mpp (", "--threads")
"""Where a value came from, as documents have it."""


def test_no_other_message_holds_an_option(repo_root: Path) -> None:
    known, flag = options(), re.compile(r"(?<![\w-])--[a-z][a-z-]*")
    found = [
        (place, text)
        for place, text in messages(repo_root)
        if known & set(flag.findall(text))
        and not any(part in text for part in NAMED)
        and not text.startswith(SOURCES)
        and not place.startswith(("benchmarks/gpu_", "benchmarks/hfrm_forms", "runtime/kernels/"))
        and not place.startswith("sshr_deploy/pack/")
    ]
    assert found == []
