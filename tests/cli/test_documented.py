"""`docs/command-line.md` names every error and exit code, and nothing else."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from sshr_deploy import errors
from sshr_deploy.cli import app, exit_code_of
from tests.cli.command import run_here


@pytest.fixture(scope="module")
def text(repo_root: Path) -> str:
    return (repo_root / "docs" / "command-line.md").read_text("utf-8")


def rows(text: str, head: str) -> list[list[str]]:
    table = text.split(f"| {head} |", 1)[1].split("\n\n")[0]
    return [[cell.strip(" `") for cell in line.split(" | ")] for line in table.splitlines()[2:]]


def commands(command: Any) -> set[str]:
    """Words of each command that does something, such as "engines verify"."""
    found = set()
    for name, sub in command.commands.items():
        within = commands(sub) if hasattr(sub, "commands") else None
        found |= {name} if within is None else {f"{name} {words}" for words in within}
    return found


def test_errors_and_their_exit_codes(text: str) -> None:
    kinds = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.SshrDeployError)
        and kind not in (errors.SshrDeployError, errors.ListedError)
    }
    documented = {name.strip("| `"): int(code) for name, code, _ in rows(text, "error")}
    known = {name: exit_code_of(kind.__new__(kind)) for name, kind in kinds.items()}
    assert documented == known


def test_exit_codes(text: str) -> None:
    documented = {row[0].strip("| ") for row in rows(text, "code")}
    assert documented == {"0", "1", "2", "130"}
    stated = run_here("--help").stdout.split("Exit codes:")[1]
    assert set(re.findall(r"(?:^|; ) ?(\d+) ", " ".join(stated.split()))) == documented


def test_commands_of_the_page_exist(text: str) -> None:
    known = commands(typer.main.get_command(app))
    for row in rows(text, "command"):
        words = row[0].strip("| `").split(" --")[0]
        assert words in known


def test_the_file_of_options_is_read(text: str, tmp_path: Path) -> None:
    block = re.search(r"(?:^    .*\n|^\n)+", text.split("TOML file:")[1], re.MULTILINE)
    assert block is not None
    content = re.sub("^    ", "", block[0], flags=re.MULTILINE)
    assert set(tomllib.loads(content)) == {"model", "infer", "watch"}
    scanner, out = tmp_path / "scanner", tmp_path / "results"
    scanner.mkdir()
    content = content.replace("/scanner", str(scanner)).replace("/results", str(out))
    (tmp_path / "run.toml").write_text(content)
    for command in ("infer", "watch"):
        done = run_here(command, "--config", tmp_path / "run.toml")
        assert f"sshr-deploy: error: {tmp_path / 'bundle'} is not a bundle" in done.stderr
