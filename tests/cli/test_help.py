"""The help of every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from sshr_deploy.cli import app
from sshr_deploy.cli.help import Entry, entries
from tests.cli.command import SETTINGS, run_here


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Words and command of the root, of each group and of each command."""
    yield words, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*words, name))


ALL = list(commands(typer.main.get_command(app)))
MODES = ("seamless", "none")
"""Choices that a help text begins with."""


def options(*words: str) -> list[Entry]:
    command = dict(ALL)[words]
    return entries(command, typer.Context(command, help_option_names=["-h", "--help"]))


@pytest.mark.parametrize("words", [words for words, _ in ALL], ids=" ".join)
def test_it_fits_into_60_columns_and_is_plain(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "COLUMNS", "60")
    done = run_here(*words, "--help")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        assert len(line) <= 60 and line == line.rstrip()
    assert not re.search(r"<[a-z]|[│╭─\x1b\\]|``|\bNone\b", done.stdout)


@pytest.mark.parametrize("words", [words for words, _ in ALL], ids=" ".join)
def test_every_option_is_explained_in_sentences(words: tuple[str, ...]) -> None:
    shown = options(*words)
    assert shown[-1].names == "--help, -h"
    for entry in shown:
        first = entry.help.split(":")[0].split()[0]
        assert first[0] == first[0].upper() or first in MODES, entry
        assert entry.help.endswith((".", ")")), entry
        assert not re.search("[<>]|range|Path", entry.placeholder), entry


def test_options_of_a_topic_stand_together() -> None:
    found = options("infer")
    panels = list(dict.fromkeys(entry.panel for entry in found))
    assert panels == [
        "Arguments", "Options", "Slides and images", "Result files", "Engine", "Unattended",
        "General",
    ]  # fmt: skip
    assert [e.panel for e in found] == sorted((e.panel for e in found), key=panels.index)
    by_name = {entry.names: entry for entry in found}
    assert by_name["--quiet"].placeholder == ""
    assert by_name["--min-region-um2"].facts[0] == "at least 0"
    assert by_name["--tissue"].facts == ("choices: auto, all", "default: auto")
    assert "required" in by_name["--model"].facts
    assert by_name["INPUT..."].panel == "Arguments"


def test_infer_and_watch_share_their_options() -> None:
    infer, watch = ({entry.names for entry in options(word)} for word in ("infer", "watch"))
    assert len(infer & watch) > 30


def test_wrong_usage_is_told_without_a_box() -> None:
    done = run_here("infer", "--moed", "x")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "Error: No such option: --moed (Possible options: --mode, --model)"
    )
    assert "sshr-deploy infer" in done.stderr and "│" not in done.stderr


def test_no_color_and_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "", "TERM": "xterm"}.items():
        monkeypatch.setitem(SETTINGS, name, value)
    coloured = "\x1b[1;36m--out"
    assert coloured in run_here("infer", "--help").stdout
    monkeypatch.setitem(SETTINGS, "NO_COLOR", "1")
    assert coloured not in run_here("infer", "--help").stdout
